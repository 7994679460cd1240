// The functions that GCC calls for `#pragma omp parallel for` with a static schedule, described in libgomp's manual. Each
// part of a loop is the iterations that GCC gives to the thread of that number; here whoever is free does it.
//
// A model is linked with --wrap for these three (compiler/codegen.py), which gives their names the prefix: where something
// else in the process, such as torch, has opened libgomp for all, the loader takes that one's functions for theirs.
#include "loops.h"

#include "team.h"

namespace {

constexpr int64_t kPartsOfMember = 4;  // parts of a loop for each member, so that one that comes late has less to do

thread_local bool shared = false;
thread_local int part = 0, parts = 1;

}  // namespace

void share_loops(bool wanted) { shared = wanted; }

extern "C" {

int __wrap_omp_get_thread_num() { return part; }

int __wrap_omp_get_num_threads() { return parts; }

void __wrap_GOMP_parallel(void (*body)(void*), void* data, unsigned, unsigned) {
  if (!shared || members() == 1) return body(data);
  int64_t count = members() * kPartsOfMember;
  parallel(count, [&](Member member) {
    parts = (int)count;
    for (int64_t task; member.take(task);) part = (int)task, body(data);
    part = 0, parts = 1;
  });
}

}  // extern "C"
