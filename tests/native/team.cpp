// Teams under stress: `team` ends with 0 if every task of every job and every iteration of every loop was done exactly
// once and teams had their shares.
#include <chrono>
#include <cstdio>
#include <future>
#include <numeric>
#include <thread>

#include "../../engines/native/loops.h"
#include "../../engines/native/team.h"

extern "C" int omp_get_num_threads();

namespace {

// A team of a thread of its own, until it is told to end.
class Held {
 public:
  Held(Workers& workers, const std::vector<Span>& order)
      : thread_([&, this] {
          Team team(workers, order);
          size_.set_value(members());
          end_.get_future().wait();
        }) {}
  int size() { return size_.get_future().get(); }
  void end() {
    end_.set_value();
    thread_.join();
  }

 private:
  std::promise<int> size_;
  std::promise<void> end_;
  std::thread thread_;
};

bool shares(const std::vector<Span>& order) {
  Workers workers(6);
  Held first(workers, order);
  bool fair = members() == 1 && first.size() == 6;
  Held second(workers, order);
  fair = fair && second.size() == 1;  // no worker is free
  first.end();
  Held third(workers, order);
  fair = fair && third.size() == 3;  // half, as there are two
  second.end(), third.end();
  Held last(workers, order);
  fair = fair && last.size() == 6;  // all came back
  last.end();
  return fair;
}

// One caller's jobs, with pauses in which workers fall asleep.
bool jobs(Workers& workers, const std::vector<Span>& order, unsigned seed, int rounds) {
  std::vector<int> done, partial(kMostMembers);
  for (int round = 0; round < rounds; ++round) {
    Team team(workers, order);
    for (int job = 0; job < 5; ++job) {
      seed = seed * 1664525 + 1013904223;
      int64_t tasks = seed >> 8 & 127;
      done.assign(tasks, 0), partial.assign(kMostMembers, 0);
      parallel(tasks, [&](Member member) {
        for (int64_t task; member.take(task);) ++done[task], ++partial[member.index];
      }, read_after(order[job % order.size()].data));
      if (std::accumulate(partial.begin(), partial.end(), int64_t(0)) != tasks) return false;
      for (int times : done)
        if (times != 1) return false;
      if ((seed & 0x3F) == 0) std::this_thread::sleep_for(std::chrono::microseconds(seed >> 20));
    }
  }
  return true;
}

// One caller's loops as generated code has them, in parts only if they are shared out.
bool loops(Workers& workers, const std::vector<Span>& order, int rounds) {
  std::vector<int> done, parts;
  for (int round = 0; round < rounds; ++round) {
    Team team(workers, order);
    bool shared = round % 3 > 0;
    share_loops(shared);
    int count = round % 131;
    done.assign(count, 0), parts.assign(count, 0);
#pragma omp parallel for
    for (int i = 0; i < count; ++i) ++done[i], parts[i] = omp_get_num_threads();
    for (int i = 0; i < count; ++i)
      if (done[i] != 1 || (parts[i] > 1) != (shared && members() > 1)) return false;
  }
  return true;
}

}  // namespace

int main() {
  std::vector<char> memory(1 << 20);
  std::vector<Span> order{{memory.data(), 1 << 19}, {memory.data() + (1 << 19), 1 << 19}};
  if (!shares(order)) return std::fprintf(stderr, "teams do not share workers as they should\n"), 1;
  Workers workers(5);
  std::vector<std::future<bool>> callers;
  for (unsigned i = 0; i < 3; ++i)
    callers.push_back(std::async(std::launch::async, [&, i] { return jobs(workers, order, i, 2000); }));
  for (auto& caller : callers)
    if (!caller.get()) return std::fprintf(stderr, "a task was not done exactly once\n"), 1;
  std::vector<std::future<bool>> loopers;
  for (int i = 0; i < 3; ++i)
    loopers.push_back(std::async(std::launch::async, [&] { return loops(workers, order, 2000); }));
  for (auto& looper : loopers)
    if (!looper.get()) return std::fprintf(stderr, "a loop was not done as it should\n"), 1;
  return 0;
}
