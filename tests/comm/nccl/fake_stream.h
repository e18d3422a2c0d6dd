#pragma once
// The streams and events of fake_gpu.h, for its two files.

#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>

// The types that the runtime's header only names.
struct CUevent_st {
  struct State {
    std::mutex mutex;
    std::condition_variable changed;
    int recorded = 0, reached = 0;  // how often
  };
  // Outlives the event where a stream still has to reach or to wait for it, as CUDA's does.
  std::shared_ptr<State> state = std::make_shared<State>();
};

struct CUstream_st {
  CUstream_st();
  ~CUstream_st();  // works off what is left
  void Push(std::function<void()> task);

 private:
  void Work();
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> tasks_;
  bool closing_ = false;
  std::thread thread_;
};
