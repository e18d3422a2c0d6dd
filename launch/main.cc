// The program `tightwire`: everything is in the library, so that a user's own main() is as short as
// this one.

#include "launch/program.h"

int main(int argc, char** argv) { return tw::ProgramMain(argc, argv); }
