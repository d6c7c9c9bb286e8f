/* Preloaded into a process, has calls on files named data.mdb fail while the file $FAILING says so:
   `sync 5` or `write 28` or `meta 5`, with the number of the error.  `meta` are writes through a
   descriptor that is synchronous. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

static int is_data(int descriptor)
{
    char link[64], path[4096];
    ssize_t length;
    const size_t name = strlen("/data.mdb");

    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    length = readlink(link, path, sizeof path);
    return length > (ssize_t)name && memcmp(path + length - name, "/data.mdb", name) == 0;
}

/* Whether a call fails; then errno says why. */
static int fails(const char *call, int descriptor)
{
    char word[16];
    int error = 0, found = 0;
    FILE *file = is_data(descriptor) ? fopen(getenv("FAILING"), "r") : NULL;

    if (file) {
        found = fscanf(file, "%15s %d", word, &error) == 2 && strcmp(word, call) == 0;
        fclose(file);
    }
    if (found)
        errno = error;
    return found;
}

static const char *kind_of(int descriptor)
{
    return fcntl(descriptor, F_GETFL) & O_DSYNC ? "meta" : "write";
}

ssize_t pwrite(int descriptor, const void *bytes, size_t length, off_t offset)
{
    ssize_t (*real)(int, const void *, size_t, off_t) = dlsym(RTLD_NEXT, "pwrite");

    return fails(kind_of(descriptor), descriptor) ? -1 : real(descriptor, bytes, length, offset);
}

ssize_t pwrite64(int descriptor, const void *bytes, size_t length, off_t offset)
{
    return pwrite(descriptor, bytes, length, offset);
}

ssize_t writev(int descriptor, const struct iovec *pieces, int count)
{
    ssize_t (*real)(int, const struct iovec *, int) = dlsym(RTLD_NEXT, "writev");

    return fails(kind_of(descriptor), descriptor) ? -1 : real(descriptor, pieces, count);
}

ssize_t pwritev(int descriptor, const struct iovec *pieces, int count, off_t offset)
{
    ssize_t (*real)(int, const struct iovec *, int, off_t) = dlsym(RTLD_NEXT, "pwritev");

    return fails(kind_of(descriptor), descriptor) ? -1 : real(descriptor, pieces, count, offset);
}

int fdatasync(int descriptor)
{
    int (*real)(int) = dlsym(RTLD_NEXT, "fdatasync");

    return fails("sync", descriptor) ? -1 : real(descriptor);
}

int fsync(int descriptor)
{
    int (*real)(int) = dlsym(RTLD_NEXT, "fsync");

    return fails("sync", descriptor) ? -1 : real(descriptor);
}
