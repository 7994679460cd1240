// The loops of generated code, which GCC compiles as OpenMP's `parallel for`, done by the engine's own threads.
#pragma once

#include <cstdint>

// Whether the calling thread's team shares its loops out from now on, or the calling thread does them alone.
void share_loops(bool shared);
