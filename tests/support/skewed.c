/* Preloaded into a process, makes its clock of the day $SKEWED_S seconds fast; slow if negative.
   Other clocks, which tell how much time has passed, are left alone. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>

static int (*real_gettime)(clockid_t, struct timespec *);
static time_t skew_s;

__attribute__((constructor)) static void start(void)
{
    real_gettime = dlsym(RTLD_NEXT, "clock_gettime");
    skew_s = atol(getenv("SKEWED_S"));
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    int result;

    if (!real_gettime)
        start(); /* somebody asks while the process is still put together */
    result = real_gettime(clock, now);
    if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        now->tv_sec += skew_s;
    return result;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
    struct timespec precise;

    (void)zone;
    clock_gettime(CLOCK_REALTIME, &precise);
    now->tv_sec = precise.tv_sec;
    now->tv_usec = precise.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *where)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    if (where)
        *where = now.tv_sec;
    return now.tv_sec;
}
