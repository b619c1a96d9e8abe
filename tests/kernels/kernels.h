/* K(name): k32_name or k64_name, in a file that twice.h includes once in each precision. Wrappers compute nothing, and
 * fill scratch memory with NaN: it may hold anything. */
#ifndef KERNELS_H
#define KERNELS_H
#define KERNEL_(bits, name) k##bits##_##name
#define KERNEL(bits, name) KERNEL_(bits, name)
#define K(name) KERNEL(REAL_BITS, name)
#endif
