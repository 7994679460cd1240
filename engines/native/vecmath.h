// Tells the C++ compiler that the C library has vector forms of these functions (libmvec), so that loops in
// generated code which call them are vectorised. Included ahead of generated sources.
#pragma once

#include <cmath>

#if defined(__x86_64__) && defined(__GLIBC__)
#define VECTOR_FORM __attribute__((__simd__("notinbranch")))
extern "C" {
VECTOR_FORM float expf(float) noexcept;
VECTOR_FORM float logf(float) noexcept;
VECTOR_FORM float sinf(float) noexcept;
VECTOR_FORM float cosf(float) noexcept;
VECTOR_FORM float powf(float, float) noexcept;
#if __GLIBC_PREREQ(2, 35)
VECTOR_FORM float tanhf(float) noexcept;
VECTOR_FORM float erff(float) noexcept;
VECTOR_FORM float expm1f(float) noexcept;
VECTOR_FORM float log1pf(float) noexcept;
#endif
}
#endif
