/* Preloaded into a process, keeps in the file $FORGETFUL_SYNCED what the disk surely has of the file
   data.mdb that the process writes: what a power cut leaves at least.  Whatever was written reaches
   it with the next sync, and at once if it was written synchronously.  The file stays when the
   process ends, and the next one goes on with it; of what that did not write itself, all is on the
   disk with its first sync.  A sync takes $FORGETFUL_SYNC_MS more, as disks do. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

struct range {
    off_t at;
    size_t length;
};

static ssize_t (*real_pwrite)(int, const void *, size_t, off_t);
static ssize_t (*real_pwritev)(int, const struct iovec *, int, off_t);
static ssize_t (*real_write)(int, const void *, size_t);
static ssize_t (*real_writev)(int, const struct iovec *, int);
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct range *unsynced;
static size_t count, room;
static int synced = -1, is_whole, sync_ms;

__attribute__((constructor)) static void start(void)
{
    real_pwrite = dlsym(RTLD_NEXT, "pwrite");
    real_pwritev = dlsym(RTLD_NEXT, "pwritev");
    real_write = dlsym(RTLD_NEXT, "write");
    real_writev = dlsym(RTLD_NEXT, "writev");
    synced = open(getenv("FORGETFUL_SYNCED"), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    sync_ms = getenv("FORGETFUL_SYNC_MS") ? atoi(getenv("FORGETFUL_SYNC_MS")) : 0;
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

/* These bytes are on the disk.  A copy that is not whole is worth nothing: then all ends. */
static void keep(const void *bytes, size_t length, off_t at)
{
    if (real_pwrite(synced, bytes, length, at) != (ssize_t)length)
        abort();
}

static void copy(int data, struct range range)
{
    char bytes[65536];

    while (range.length) {
        size_t piece = range.length < sizeof bytes ? range.length : sizeof bytes;
        if (pread(data, bytes, piece, range.at) != (ssize_t)piece)
            abort();
        keep(bytes, piece, range.at);
        range.at += (off_t)piece;
        range.length -= piece;
    }
}

static void remember(struct range range)
{
    pthread_mutex_lock(&lock);
    if (count == room) {
        room = room ? 2 * room : 64;
        unsynced = realloc(unsynced, room * sizeof *unsynced);
        if (!unsynced)
            abort();
    }
    unsynced[count++] = range;
    pthread_mutex_unlock(&lock);
}

/* What a write to a file has come to. */
static ssize_t wrote(ssize_t result, int descriptor, off_t at, const struct iovec *pieces,
                     int pieces_count)
{
    size_t left = result > 0 ? (size_t)result : 0;
    int i;

    if (!left || !is_data(descriptor))
        return result;
    if (!(fcntl(descriptor, F_GETFL) & O_DSYNC)) {
        remember((struct range){at, left});
        return result;
    }
    for (i = 0; i < pieces_count && left; i++) {
        size_t length = pieces[i].iov_len < left ? pieces[i].iov_len : left;
        keep(pieces[i].iov_base, length, at);
        at += (off_t)length;
        left -= length;
    }
    return result;
}

ssize_t pwrite(int descriptor, const void *bytes, size_t length, off_t at)
{
    struct iovec piece = {(void *)bytes, length};

    return wrote(real_pwrite(descriptor, bytes, length, at), descriptor, at, &piece, 1);
}

ssize_t pwrite64(int descriptor, const void *bytes, size_t length, off_t at)
{
    return pwrite(descriptor, bytes, length, at);
}

ssize_t pwritev(int descriptor, const struct iovec *pieces, int pieces_count, off_t at)
{
    return wrote(real_pwritev(descriptor, pieces, pieces_count, at), descriptor, at, pieces,
                 pieces_count);
}

ssize_t write(int descriptor, const void *bytes, size_t length)
{
    struct iovec piece = {(void *)bytes, length};
    off_t at = lseek(descriptor, 0, SEEK_CUR);

    return wrote(real_write(descriptor, bytes, length), descriptor, at, &piece, 1);
}

ssize_t writev(int descriptor, const struct iovec *pieces, int pieces_count)
{
    off_t at = lseek(descriptor, 0, SEEK_CUR);

    return wrote(real_writev(descriptor, pieces, pieces_count), descriptor, at, pieces,
                 pieces_count);
}

/* What had been written when the sync began is on the disk when it is done. */
static int sync_with(const char *name, int descriptor)
{
    int (*real)(int) = dlsym(RTLD_NEXT, name);
    struct timespec slow = {0, sync_ms * 1000000L};
    struct range *written;
    struct stat stat;
    size_t i, written_count;
    int result;

    if (!is_data(descriptor))
        return real(descriptor);
    pthread_mutex_lock(&lock);
    written = unsynced;
    written_count = count;
    unsynced = NULL;
    count = room = 0;
    pthread_mutex_unlock(&lock);
    if (sync_ms)
        nanosleep(&slow, NULL);
    result = real(descriptor);
    if (result != 0)
        return result;
    if (!is_whole && fstat(descriptor, &stat) == 0)
        copy(descriptor, (struct range){0, (size_t)stat.st_size});
    is_whole = 1;
    for (i = 0; i < written_count; i++)
        copy(descriptor, written[i]);
    free(written);
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
