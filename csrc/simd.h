/* Includes the file named by SIMD once for each instruction set, with BYTES, the width of its registers, and
 * KERNEL(name), which names a function of it. It is for loops written in vectors: the attribute of PF_DISPATCH comes
 * too late for vector types, which are taken apart before functions are inlined; here the whole file is compiled for an
 * instruction set. Included where `real` and X are defined. SIMD_BEST(name)(...) then calls what this processor can
 * run. No include guard. SIMD_WIDEST, if that is defined before, is the most that BYTES may be.
 *
 *     #define SIMD "tile.inc"
 *     #include "simd.h"
 */
#ifndef SIMD_WIDEST
#define SIMD_WIDEST 64
#endif
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define SIMD_BEST(name) (pf_simd_level == 5 ? X(name##_512) : pf_simd_level == 2 ? X(name##_256) : X(name##_any))
#pragma GCC push_options
#pragma GCC target("avx512f,avx512dq,avx512vl,avx512bw,avx2,fma,prefer-vector-width=512")
#define KERNEL(name) X(name##_512)
#define BYTES SIMD_WIDEST
#include SIMD
#undef KERNEL
#undef BYTES
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#define KERNEL(name) X(name##_256)
#define BYTES 32
#include SIMD
#undef KERNEL
#undef BYTES
#pragma GCC pop_options
#else
#define SIMD_BEST(name) X(name##_any)
#endif
#define KERNEL(name) X(name##_any)
#define BYTES 16
#include SIMD
#undef KERNEL
#undef BYTES
#undef SIMD
#undef SIMD_WIDEST
