/* GIS from plain C: fit a density to a ring, check it against the truth, draw from it, save it and load it again.
 *
 *     cc -std=c11 -o gis examples/gis.c $(pkg-config --cflags --libs pyflow) -lm && ./gis
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "pyflow.h"

#define PI 3.14159265358979323846

enum { N = 5000, N_VALIDATE = 1000, N_TEST = 2000, D = 2 };

static double uniform(void) { return (rand() + 0.5) / (RAND_MAX + 1.0); }

static double normal(void) { return sqrt(-2 * log(uniform())) * cos(2 * PI * uniform()); }

/* A ring of radius 2 and thickness 0.3: the radius is normal, the angle uniform. */
static void draw(double x[D])
{
    double r = 2 + 0.3 * normal(), angle = 2 * PI * uniform();
    x[0] = r * cos(angle);
    x[1] = r * sin(angle);
}

static double true_logp(const double x[D])
{
    double r = hypot(x[0], x[1]), u = (r - 2) / 0.3;
    return -0.5 * u * u - log(0.3 * sqrt(2 * PI)) - log(2 * PI * r);
}

static void check(pf_status status)
{
    if (status == PF_OK) return;
    fprintf(stderr, "pyflow: %s\n", pf_message());
    exit(1);
}

static int report(void *user, const pf_progress *p)
{
    (void)user;
    if (p->step % 20 == 0)
        printf("layer %3td: log p %.4f training, %.4f validation\n", p->step, p->logp_train, p->logp_validate);
    return 0; /* anything else stops the fit */
}

int main(void)
{
    static double train[N][D], validate[N_VALIDATE][D], test[N_TEST][D], logp[N_TEST], again[N_TEST], sample[5][D];
    srand(1);
    for (int i = 0; i < N; i++) draw(train[i]);
    for (int i = 0; i < N_VALIDATE; i++) draw(validate[i]);
    for (int i = 0; i < N_TEST; i++) draw(test[i]);

    pf64_data training = {.x = train[0], .n = N}, validation = {.x = validate[0], .n = N_VALIDATE};
    pf_gis_options options;
    pf_gis_defaults(&options);
    options.watch.progress = report;
    pf64_flow *flow = NULL;
    check(pf64_gis_fit(&flow, &training, &validation, D, &options));

    check(pf64_flow_logp(flow, logp, test[0], NULL, NULL, N_TEST));
    double divergence = 0;
    for (int i = 0; i < N_TEST; i++) divergence += (true_logp(test[i]) - logp[i]) / N_TEST;
    printf("%td layers; divergence from the truth %.4f nats\n", pf64_flow_layers(flow), divergence);

    check(pf64_flow_sample(flow, sample[0], logp, NULL, NULL, 7, 0, 5));
    for (int i = 0; i < 5; i++)
        printf("sample (%6.3f, %6.3f)  log p %7.4f, true %7.4f\n", sample[i][0], sample[i][1], logp[i],
               true_logp(sample[i]));

    const char *path = "ring.pyflow";
    pf64_flow *loaded;
    check(pf64_flow_save(flow, path));
    check(pf64_flow_load(&loaded, path));
    remove(path);
    check(pf64_flow_logp(flow, logp, test[0], NULL, NULL, N_TEST));
    check(pf64_flow_logp(loaded, again, test[0], NULL, NULL, N_TEST));
    int same = 1;
    for (int i = 0; i < N_TEST; i++) same &= logp[i] == again[i];
    printf("loaded flow: %s\n", same ? "the same densities" : "OTHER DENSITIES");
    pf64_flow_free(flow);
    pf64_flow_free(loaded);
    return !(same && divergence < 0.1);
}
