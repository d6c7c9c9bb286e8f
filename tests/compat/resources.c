/* Preloaded into a process, makes resources low: what $LOW_DISK says is free, in bytes, is free of
   every disk, and the file $LOW_MEMORY stands for /proc/self/statm, if they are there. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

static int opened(const char *name, const char *path, int flags, mode_t mode)
{
    int (*real)(const char *, int, ...) = dlsym(RTLD_NEXT, name);
    const char *instead = getenv("LOW_MEMORY");

    if (instead && strcmp(path, "/proc/self/statm") == 0 && access(instead, R_OK) == 0)
        path = instead;
    return real(path, flags, mode);
}

static mode_t mode_of(int flags, va_list arguments)
{
    return flags & (O_CREAT | O_TMPFILE) ? va_arg(arguments, mode_t) : 0;
}

int open(const char *path, int flags, ...)
{
    va_list arguments;

    va_start(arguments, flags);
    return opened("open", path, flags, mode_of(flags, arguments));
}

int open64(const char *path, int flags, ...)
{
    va_list arguments;

    va_start(arguments, flags);
    return opened("open64", path, flags, mode_of(flags, arguments));
}

static void lower(fsblkcnt_t *blocks, unsigned long block_bytes)
{
    const char *path = getenv("LOW_DISK");
    FILE *file = path ? fopen(path, "r") : NULL;
    unsigned long long bytes;

    if (file && fscanf(file, "%llu", &bytes) == 1)
        *blocks = bytes / block_bytes;
    if (file)
        fclose(file);
}

int statvfs(const char *path, struct statvfs *status)
{
    int (*real)(const char *, struct statvfs *) = dlsym(RTLD_NEXT, "statvfs");
    int result = real(path, status);

    if (result == 0)
        lower(&status->f_bavail, status->f_frsize);
    return result;
}

int statvfs64(const char *path, struct statvfs64 *status)
{
    int (*real)(const char *, struct statvfs64 *) = dlsym(RTLD_NEXT, "statvfs64");
    int result = real(path, status);
    fsblkcnt_t blocks;

    if (result == 0) {
        blocks = status->f_bavail;
        lower(&blocks, status->f_frsize);
        status->f_bavail = blocks;
    }
    return result;
}
