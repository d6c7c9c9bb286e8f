/* Preloaded into a process, notes what it does to files named data.mdb, in order, in the file
   $RECORDER_TRACE.  An event is kind:1 offset:8 length:8, big-endian, and its bytes:

     W offset bytes   written; on the disk at some time before the next S
     D offset bytes   written through a descriptor that is synchronous: on the disk
     S                everything written is on the disk
     M bytes          what the process wrote to the descriptor of $RECORDER_MARKS: a mark */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

static ssize_t (*real_pwrite)(int, const void *, size_t, off_t);
static ssize_t (*real_write)(int, const void *, size_t);
static int trace = -1;

__attribute__((constructor)) static void start(void)
{
    real_pwrite = dlsym(RTLD_NEXT, "pwrite");
    real_write = dlsym(RTLD_NEXT, "write");
    trace = open(getenv("RECORDER_TRACE"), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

static int is_data(int descriptor)
{
    char link[64], path[4096];
    ssize_t length;
    const size_t name = strlen("/data.mdb");

    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    length = readlink(link, path, sizeof path);
    return length > (ssize_t)name && memcmp(path + length - name, "/data.mdb", name) == 0;
}

static void note(char kind, uint64_t offset, const struct iovec *pieces, int count)
{
    unsigned char head[17];
    uint64_t length = 0;
    int i;

    for (i = 0; i < count; i++)
        length += pieces[i].iov_len;
    head[0] = (unsigned char)kind;
    for (i = 0; i < 8; i++) {
        head[1 + i] = (unsigned char)(offset >> (56 - 8 * i));
        head[9 + i] = (unsigned char)(length >> (56 - 8 * i));
    }
    real_write(trace, head, sizeof head);
    for (i = 0; i < count; i++)
        real_write(trace, pieces[i].iov_base, pieces[i].iov_len);
}

static void note_write(int descriptor, uint64_t offset, const struct iovec *pieces, int count)
{
    if (is_data(descriptor))
        note(fcntl(descriptor, F_GETFL) & O_DSYNC ? 'D' : 'W', offset, pieces, count);
}

ssize_t pwrite(int descriptor, const void *bytes, size_t length, off_t offset)
{
    struct iovec piece = {(void *)bytes, length};

    note_write(descriptor, (uint64_t)offset, &piece, 1);
    return real_pwrite(descriptor, bytes, length, offset);
}

ssize_t pwrite64(int descriptor, const void *bytes, size_t length, off_t offset)
{
    return pwrite(descriptor, bytes, length, offset);
}

ssize_t write(int descriptor, const void *bytes, size_t length)
{
    struct iovec piece = {(void *)bytes, length};
    const char *marks = getenv("RECORDER_MARKS");

    if (marks && descriptor == atoi(marks))
        note('M', 0, &piece, 1);
    else
        note_write(descriptor, (uint64_t)lseek(descriptor, 0, SEEK_CUR), &piece, 1);
    return real_write(descriptor, bytes, length);
}

ssize_t writev(int descriptor, const struct iovec *pieces, int count)
{
    static ssize_t (*real)(int, const struct iovec *, int);

    if (!real)
        real = dlsym(RTLD_NEXT, "writev");
    note_write(descriptor, (uint64_t)lseek(descriptor, 0, SEEK_CUR), pieces, count);
    return real(descriptor, pieces, count);
}

ssize_t pwritev(int descriptor, const struct iovec *pieces, int count, off_t offset)
{
    static ssize_t (*real)(int, const struct iovec *, int, off_t);

    if (!real)
        real = dlsym(RTLD_NEXT, "pwritev");
    note_write(descriptor, (uint64_t)offset, pieces, count);
    return real(descriptor, pieces, count, offset);
}

static int sync_with(const char *name, int descriptor)
{
    int (*real)(int) = dlsym(RTLD_NEXT, name);
    int result = real(descriptor);

    if (result == 0 && is_data(descriptor))
        note('S', 0, NULL, 0);
    return result;
}

int fdatasync(int descriptor)
{
    return sync_with("fdatasync", descriptor);
}

int fsync(int descriptor)
{
    return sync_with("fsync", descriptor);
}
