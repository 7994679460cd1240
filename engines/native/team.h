// The threads that compute one forward pass together: the caller's own and workers that belong to the engine.
//
// A job is cut into more tasks than there are threads. Each member starts on a share of its own and then helps the
// others, so a worker that the system has put aside costs nothing: what it did not take somebody else does, and nobody
// waits for a worker that has not come. Between jobs a worker reads ahead what the next one needs, looks out for it
// for a moment, and then sleeps.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <thread>
#include <type_traits>
#include <vector>

constexpr int kMostMembers = 64;

// Memory that a member will read next.
struct Span {
  const char* data;
  int64_t bytes;
};

// The tasks of one job and who has which. Owners take from the front of their share, which keeps their reads one
// stream; helpers take from its back.
class Tasks {
 public:
  Tasks(int64_t count, int members);
  bool take(int member, int64_t& task);
  int members() const { return members_; }

 private:
  struct alignas(64) Share {
    std::atomic<uint64_t> range;  // its first task in the low half, its end in the high half
  };
  int members_;
  Share shares_[kMostMembers];
};

// One thread's part in a job. Members count from 0, the calling thread.
struct Member {
  int index;
  Tasks& tasks;
  bool take(int64_t& task) { return tasks.take(index, task); }
};

// Lives on the caller's stack until every worker that took it has returned.
struct Job {
  void (*run)(void* body, Member member);
  void* body;
  Tasks tasks;
  Span next;
};

// A thread that does the jobs put into its mailbox, one at a time.
class Worker {
 public:
  Worker() : thread_([this] { work(); }) {}
  ~Worker();
  void post(Job* job, int index);
  // Takes the job back if it was not begun, else waits until it is done.
  void finish(Job* job);

 private:
  void work();
  Job* wait_for_job();
  void read_ahead(Span next, int index, int members) const;

  std::atomic<Job*> mailbox_{nullptr};
  std::atomic<int> asleep_{0};
  int index_ = 0;
  std::thread thread_;
};

// The workers of an engine that uses `threads` threads; fewer if the system gives no more.
class Workers {
 public:
  explicit Workers(int threads);

 private:
  friend class Team;
  std::mutex mutex_;
  int threads_, teams_ = 0;
  std::vector<std::unique_ptr<Worker>> all_;
  std::vector<Worker*> free_;
};

// The calling thread and the workers it has until the end of the block. Teams at the same time share the workers out:
// more threads than cores would wait for each other.
class Team {
 public:
  // `order`: what linears read, sorted by address, which is the order in which a graph reads it.
  Team(Workers& workers, const std::vector<Span>& order);
  ~Team();
  Team(const Team&) = delete;
  Team& operator=(const Team&) = delete;

 private:
  friend int members();
  friend Span read_after(const char*);
  friend void run_job(Job&);
  Workers& workers_;
  const std::vector<Span>& order_;
  std::vector<Worker*> mine_;
};

// How many threads the calling one has for a job, itself included: 1 outside of any team.
int members();
// What is read after the weights at `data`.
Span read_after(const char* data);
void run_job(Job& job);

// Runs body(member) on every member that comes until all tasks are done. A body takes its tasks with member.take();
// it must not throw. Workers who have nothing left to do then read `next` ahead. `most` members come, 1 for work that is
// done before a second one has woken.
template <typename Body>
void parallel(int64_t tasks, Body&& body, Span next = {}, int most = kMostMembers) {
  auto run = [](void* body, Member member) { (*static_cast<std::remove_reference_t<Body>*>(body))(member); };
  Job job{run, &body, Tasks(tasks, tasks > 1 ? std::min(most, members()) : 1), next};
  run_job(job);
}
