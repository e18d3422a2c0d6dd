#pragma once
// The whole program as a function. A program of your own registers a task (or a compressor, an
// optimizer...) and calls it: its variants then work in train, eval, explain and list like the
// built-in ones. examples/04_own_module shows one.

namespace tw {

struct DeviceModule;

// Returns the exit code: 0 done, 2 config, 3 data, 4 peer, 5 numbers, 70 bug. `devices` in the
// place of this machine's, for tests.
int ProgramMain(int argc, char** argv, const DeviceModule* devices = nullptr);

}  // namespace tw
