/* Includes the file named by TWICE once in each precision. A numeric source file begins
 *
 *     #ifndef real
 *     (includes, and what does not depend on the precision)
 *     #define TWICE "thisfile.c"
 *     #include "twice.h"
 *     #else
 *
 * and the body that follows says real, X(name) for pf32_name or pf64_name, R(sqrt) for sqrtf or sqrt. No include guard.
 */
#define real float
#define REAL_BITS 32
#define X(name) pf32_##name
#define R(name) name##f
#include TWICE
#undef real
#undef REAL_BITS
#undef X
#undef R

#define real double
#define REAL_BITS 64
#define X(name) pf64_##name
#define R(name) name
#include TWICE
#undef real
#undef REAL_BITS
#undef X
#undef R
#undef TWICE
