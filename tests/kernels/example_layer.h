/* A worked example of a layer: example_layer.c. */
#ifndef EXAMPLE_LAYER_H
#define EXAMPLE_LAYER_H
#include "layer.h"

#define TWICE "example_layer.h"
#include "twice.h"
#elif defined(real)

pf_status X(example_new)(X(layer) **l, ptrdiff_t d);
#endif
