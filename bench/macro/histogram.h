/* A histogram of nanoseconds: 64 buckets to each power of two, so within 1.6 % of the truth.
   Included by load.c alone. */

#include <stdint.h>

enum { HIST_SUB = 64, HIST_BUCKETS = (64 - 5) * HIST_SUB };

struct histogram {
    uint64_t counts[HIST_BUCKETS];
    uint64_t total, most;
};

static int hist_index(uint64_t ns)
{
    if (ns < HIST_SUB)
        return (int)ns;
    int shift = 63 - __builtin_clzll(ns) - 6; /* ns >> shift is in [64, 128) */
    return (shift + 1) * HIST_SUB + (int)((ns >> shift) - HIST_SUB);
}

static void hist_add(struct histogram *h, uint64_t ns)
{
    h->counts[hist_index(ns)]++;
    h->total++;
    if (ns > h->most)
        h->most = ns;
}

/* The middle of the bucket in which the value of rank share * total lies, ns; 0 if there is none. */
static double hist_quantile(const struct histogram *h, double share)
{
    uint64_t want = (uint64_t)(share * (double)h->total), seen = 0;
    if (h->total == 0)
        return 0;
    if (want >= h->total)
        want = h->total - 1;
    for (int i = 0; i < HIST_BUCKETS; i++) {
        seen += h->counts[i];
        if (seen > want) {
            if (i < HIST_SUB)
                return i;
            int shift = i / HIST_SUB - 1;
            uint64_t low = (uint64_t)(HIST_SUB + i % HIST_SUB) << shift;
            return (double)low + (double)(1ull << shift) / 2;
        }
    }
    return (double)h->most;
}
