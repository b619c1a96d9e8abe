/* CHECK(condition, format, ...): says what failed, and counts it; main returns check_result(). */
#ifndef CHECK_H
#define CHECK_H
#include <stdio.h>

static int check_failures;

#define CHECK(condition, ...)                                                                                          \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            printf("%s:%d: %s failed: ", __FILE__, __LINE__, #condition);                                              \
            printf(__VA_ARGS__);                                                                                       \
            printf("\n");                                                                                              \
            check_failures++;                                                                                          \
        }                                                                                                              \
    } while (0)

static inline int check_result(void)
{
    if (check_failures) printf("%d checks failed\n", check_failures);
    return check_failures != 0;
}
#endif
