/* The exponential, inline, for loops that are to vectorise. Included in each precision, where `real` and X are defined,
 * by files that come through twice.h. No include guard. */
#if REAL_BITS == 32
#define EXP_BITS uint32_t
#define EXP_MANTISSA 23
#define EXP_REACH 80
#else
#define EXP_BITS uint64_t
#define EXP_MANTISSA 52
#define EXP_REACH 700
#endif
/* exp(x) = 2^k exp(r), |r| <= log(2) / 2, the second by its Taylor series; beyond +-EXP_REACH as at +-EXP_REACH */
PF_KERNEL real X(exp_inline)(real x)
{
    const real shift = (real)1.5 * ((EXP_BITS)1 << EXP_MANTISSA); /* adding it rounds to an integer */
    real a = x < -EXP_REACH ? -EXP_REACH : x > EXP_REACH ? EXP_REACH : x, k = a * (real)M_LOG2E + shift, power, e = 0;
    EXP_BITS bits;
    memcpy(&bits, &k, sizeof k);
    bits = (bits + ((EXP_BITS)1 << (REAL_BITS - EXP_MANTISSA - 2)) - 1) << EXP_MANTISSA;
    memcpy(&power, &bits, sizeof power);
    k -= shift;
    real r = a - k * (real)0x1.62e4p-1 - k * (real)0x1.7f7d1cf79abcap-20;
#if REAL_BITS == 64
    e = e * r + 1. / 6227020800;
    e = e * r + 1. / 479001600;
    e = e * r + 1. / 39916800;
    e = e * r + 1. / 3628800;
    e = e * r + 1. / 362880;
    e = e * r + 1. / 40320;
#endif
    e = e * r + (real)(1. / 5040);
    e = e * r + (real)(1. / 720);
    e = e * r + (real)(1. / 120);
    e = e * r + (real)(1. / 24);
    e = e * r + (real)(1. / 6);
    e = e * r + (real)0.5;
    return (1 + r + r * r * e) * power;
}
#undef EXP_BITS
#undef EXP_MANTISSA
#undef EXP_REACH
