#include "team.h"

#include <algorithm>
#include <system_error>

namespace {

thread_local Team* current = nullptr;

// What else a mailbox may hold: a job that its worker has begun, and the end of the worker.
Job* const kBegun = reinterpret_cast<Job*>(1);
Job* const kEnd = reinterpret_cast<Job*>(2);

constexpr int kLooks = 4000;             // looks into a mailbox, some 0.1 ms, before a worker sleeps
constexpr int64_t kAheadBytes = 512 << 10;  // half of the second-level cache of a current server core

void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#else
  asm volatile("isb");  // yield takes no time on server cores
#endif
}

uint64_t range_of(uint64_t begin, uint64_t end) { return end << 32 | begin; }

}  // namespace

Tasks::Tasks(int64_t count, int members) : members_(members) {
  for (int i = 0; i < members; ++i)
    shares_[i].range.store(range_of(count * i / members, count * (i + 1) / members), std::memory_order_relaxed);
}

bool Tasks::take(int member, int64_t& task) {
  for (int i = 0; i < members_; ++i) {
    std::atomic<uint64_t>& range = shares_[(member + i) % members_].range;
    uint64_t now = range.load(std::memory_order_relaxed);
    for (;;) {
      uint64_t begin = now & 0xFFFFFFFF, end = now >> 32;
      if (begin >= end) break;
      uint64_t left = i == 0 ? range_of(begin + 1, end) : range_of(begin, end - 1);
      if (!range.compare_exchange_weak(now, left, std::memory_order_relaxed)) continue;
      task = int64_t(i == 0 ? begin : end - 1);
      return true;
    }
  }
  return false;
}

Worker::~Worker() {
  post(kEnd, 0);
  thread_.join();
}

void Worker::post(Job* job, int index) {
  index_ = index;
  mailbox_.store(job);  // before the look at asleep_, as the worker does it the other way round
  if (asleep_.load() && asleep_.exchange(0)) asleep_.notify_one();
}

void Worker::finish(Job* job) {
  if (mailbox_.compare_exchange_strong(job, nullptr)) return;
  for (int looks = 0; mailbox_.load(std::memory_order_acquire); ++looks)
    looks < kLooks ? relax() : std::this_thread::yield();  // it may need this very core
}

Job* Worker::wait_for_job() {
  for (;;) {
    for (int looks = 0; looks < kLooks; ++looks) {
      if (Job* job = mailbox_.load()) return job;
      relax();
    }
    asleep_.store(1);
    if (!mailbox_.load()) asleep_.wait(1);
    asleep_.store(0);
  }
}

void Worker::work() {
  current = nullptr;  // has memory for all thread-local data taken now: once there is none, glibc would end the process
  for (;;) {
    Job* job = wait_for_job();
    if (job == kEnd) return;
    if (!mailbox_.compare_exchange_strong(job, kBegun)) continue;
    int index = index_, members = job->tasks.members();
    Span next = job->next;
    job->run(job->body, {index, job->tasks});
    mailbox_.store(nullptr, std::memory_order_release);  // from here on the job may be gone
    read_ahead(next, index, members);
  }
}

// Memory is idle while the caller computes norms and the like alone: begin with this worker's share of what is next.
void Worker::read_ahead(Span next, int index, int members) const {
  int64_t begin = next.bytes * index / members, end = next.bytes * (index + 1) / members;
  end = std::min(end, begin + kAheadBytes);
  for (int64_t i = begin; i < end && !mailbox_.load(std::memory_order_relaxed); i += 64)
    __builtin_prefetch(next.data + i, 0, 2);
}

Workers::Workers(int threads) : threads_(std::clamp(threads, 1, kMostMembers)) {
  try {
    while ((int)all_.size() < threads_ - 1) all_.push_back(std::make_unique<Worker>());
  } catch (const std::system_error&) {
    threads_ = (int)all_.size() + 1;
  }
  for (auto& worker : all_) free_.push_back(worker.get());
}

Team::Team(Workers& workers, const std::vector<Span>& order) : workers_(workers), order_(order) {
  std::lock_guard<std::mutex> lock(workers.mutex_);
  mine_.reserve(workers.free_.size());  // what may fail comes before anything is taken
  size_t wanted = std::max(1, workers.threads_ / ++workers.teams_) - 1;
  while (mine_.size() < wanted && !workers.free_.empty()) {
    mine_.push_back(workers.free_.back());
    workers.free_.pop_back();
  }
  current = this;
}

Team::~Team() {
  current = nullptr;
  std::lock_guard<std::mutex> lock(workers_.mutex_);
  --workers_.teams_;
  workers_.free_.insert(workers_.free_.end(), mine_.begin(), mine_.end());
}

int members() { return current ? (int)current->mine_.size() + 1 : 1; }

Span read_after(const char* data) {
  if (!current) return {};
  auto next = std::upper_bound(current->order_.begin(), current->order_.end(), data,
                               [](const char* place, const Span& span) { return place < span.data; });
  return next == current->order_.end() ? Span{} : *next;
}

void run_job(Job& job) {
  int workers = job.tasks.members() - 1;
  for (int i = 0; i < workers; ++i) current->mine_[i]->post(&job, i + 1);
  job.run(job.body, {0, job.tasks});
  for (int i = 0; i < workers; ++i) current->mine_[i]->finish(&job);
}
