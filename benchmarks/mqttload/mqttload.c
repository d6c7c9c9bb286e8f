/* A load generator for MQTT brokers on loopback: one mode a run, bounded in messages and in time.  It
 * prints one JSON object: how many messages, how long, and the CPU of the broker's processes. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { CONNECT = 1, CONNACK, PUBLISH, PUBACK, PUBREC, PUBREL, PUBCOMP, SUBSCRIBE, SUBACK, PINGREQ = 12,
       PINGRESP, DISCONNECT };
enum { PUBLISHER, SUBSCRIBER, CONNECTING };
#define BATCH 500 /* messages of QoS 0 between two pings */
#define READ_BYTES 65536

static struct {
    const char *mode, *user, *password;
    int port, subscriber_port, clients, qos, size, window, version, lasting, retain, properties, pids[64], pid_count;
    uint64_t messages, warm_up;
    double seconds;
} opt = {.mode = "", .clients = 1, .qos = 0, .size = 64, .window = 100, .version = 5,
         .messages = 100000, .seconds = 60};

typedef struct client {
    int fd, role, index, wants_out, in_flight, pings;
    uint16_t id;
    uint64_t sent, received, pinged;
    uint8_t *in, *out;
    size_t in_length, in_capacity, out_length, out_offset, out_capacity;
    struct client *peer; /* who gets what this one publishes */
} client;

static client *clients;
static int epoll_fd, client_count;
static uint64_t sent, acknowledged, delivered, connected, quota;

static void die(const char *what) {
    fprintf(stderr, "%s: %s\n", what, strerror(errno));
    exit(2);
}

static double now_s(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* Of the broker: user and system time, resident memory. */

static double cpu_s(void) {
    double ticks = 0;
    for (int i = 0; i < opt.pid_count; i++) {
        char path[64], text[1024];
        snprintf(path, sizeof path, "/proc/%d/stat", opt.pids[i]);
        FILE *f = fopen(path, "r");
        if (!f)
            continue;
        size_t n = fread(text, 1, sizeof text - 1, f);
        fclose(f);
        text[n] = 0;
        char *p = strrchr(text, ')');
        unsigned long user = 0, system = 0;
        if (p && sscanf(p + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &system) == 2)
            ticks += (double)(user + system);
    }
    return ticks / (double)sysconf(_SC_CLK_TCK);
}

static double rss_kib(void) {
    double pages = 0;
    for (int i = 0; i < opt.pid_count; i++) {
        char path[64];
        long resident = 0;
        snprintf(path, sizeof path, "/proc/%d/statm", opt.pids[i]);
        FILE *f = fopen(path, "r");
        if (!f)
            continue;
        if (fscanf(f, "%*d %ld", &resident) == 1)
            pages += (double)resident;
        fclose(f);
    }
    return pages * (double)sysconf(_SC_PAGESIZE) / 1024;
}

/* Bytes */

static void put(client *c, const void *bytes, size_t n) {
    if (c->out_length + n > c->out_capacity) {
        c->out_capacity = (c->out_length + n) * 2;
        c->out = realloc(c->out, c->out_capacity);
        if (!c->out)
            die("realloc");
    }
    memcpy(c->out + c->out_length, bytes, n);
    c->out_length += n;
}

static void put8(client *c, int value) {
    uint8_t byte = (uint8_t)value;
    put(c, &byte, 1);
}

static void put16(client *c, int value) {
    put8(c, value >> 8);
    put8(c, value);
}

static void put_string(client *c, const char *text) {
    put16(c, (int)strlen(text));
    put(c, text, strlen(text));
}

static void put_header(client *c, int first, size_t body) {
    put8(c, first);
    do {
        int low = (int)(body & 127);
        body >>= 7;
        put8(c, low | (body ? 128 : 0));
    } while (body);
}

static void put_answer(client *c, int first, int id) {
    uint8_t packet[4] = {(uint8_t)first, 2, (uint8_t)(id >> 8), (uint8_t)id};
    put(c, packet, 4);
}

static void put_connect(client *c, const char *id, int lasting) {
    int five = opt.version == 5;
    int flags = (lasting ? 0 : 2) | (opt.user ? 0xC0 : 0);
    size_t body = 10 + 2 + strlen(id) + (five ? (lasting ? 6 : 1) : 0);
    if (opt.user)
        body += 4 + strlen(opt.user) + strlen(opt.password);
    put_header(c, CONNECT << 4, body);
    put_string(c, "MQTT");
    put8(c, opt.version);
    put8(c, flags);
    put16(c, 0);
    if (five && lasting)
        put(c, "\x05\x11\x00\x00\x0e\x10", 6); /* a session of an hour */
    else if (five)
        put8(c, 0);
    put_string(c, id);
    if (opt.user) {
        put_string(c, opt.user);
        put_string(c, opt.password);
    }
}

static void topic_of(char *out, size_t n, int index) {
    snprintf(out, n, "load/topic/%d", index);
}

static void put_subscribe(client *c, const char *filter) {
    put_header(c, SUBSCRIBE << 4 | 2, 2 + (opt.version == 5) + 2 + strlen(filter) + 1);
    put16(c, 1);
    if (opt.version == 5)
        put8(c, 0);
    put_string(c, filter);
    put8(c, opt.qos);
}

static const uint8_t properties[] = "\x02\x00\x00\x0e\x10" /* Message Expiry: an hour */
                                    "\x03\x00\x0a" "text/plain"
                                    "\x08\x00\x0e" "answers/load/1"
                                    "\x09\x00\x08" "01234567" /* Correlation Data */
                                    "\x26\x00\x04" "unit" "\x00\x07" "celsius";
#define PROPERTIES_BYTES (sizeof properties - 1)

static uint8_t template_[70000]; /* a PUBLISH; its number stands at template_id */
static size_t template_bytes, template_id;
static int template_of = -1;

static void build_template(int index) {
    client c = {0};
    char topic[64];
    topic_of(topic, sizeof topic, index);
    int five = opt.version == 5, numbered = opt.qos > 0;
    size_t more = opt.properties ? PROPERTIES_BYTES : 0; /* below 128, so their length is an octet */
    size_t body = 2 + strlen(topic) + (numbered ? 2 : 0) + (size_t)five + more + (size_t)opt.size;
    put_header(&c, PUBLISH << 4 | opt.qos << 1 | opt.retain, body);
    put_string(&c, topic);
    template_id = c.out_length;
    if (numbered)
        put16(&c, 0);
    if (five)
        put8(&c, (int)more);
    put(&c, properties, more);
    for (int i = 0; i < opt.size; i++)
        put8(&c, 'x');
    memcpy(template_, c.out, c.out_length);
    template_bytes = c.out_length;
    template_of = index;
    free(c.out);
}

static void put_publish(client *c) {
    if (template_of != c->index)
        build_template(c->index);
    if (opt.qos) {
        c->id = c->id == 65535 ? 1 : (uint16_t)(c->id + 1);
        template_[template_id] = (uint8_t)(c->id >> 8);
        template_[template_id + 1] = (uint8_t)c->id;
        c->in_flight++;
    }
    put(c, template_, template_bytes);
    c->sent++;
    sent++;
    if (!opt.qos && !c->peer && ++c->pinged == BATCH) {
        put(c, "\xc0\x00", 2);
        c->pings++;
        c->pinged = 0;
    }
}

/* Sockets */

static void watch(client *c, int out) {
    struct epoll_event e = {.events = EPOLLIN | (out ? EPOLLOUT : 0u), .data.ptr = c};
    if (epoll_ctl(epoll_fd, c->wants_out < 0 ? EPOLL_CTL_ADD : EPOLL_CTL_MOD, c->fd, &e))
        die("epoll_ctl");
    c->wants_out = out;
}

static void flush_some(client *c) {
    while (c->out_offset < c->out_length) {
        ssize_t n = send(c->fd, c->out + c->out_offset, c->out_length - c->out_offset, MSG_NOSIGNAL);
        if (n < 0 && errno == EAGAIN)
            break;
        if (n < 0)
            die("send");
        c->out_offset += (size_t)n;
    }
    int left = c->out_offset < c->out_length;
    if (!left)
        c->out_offset = c->out_length = 0;
    if (left != c->wants_out)
        watch(c, left);
}

static void open_socket(client *c) {
    int port = c->role == SUBSCRIBER && opt.subscriber_port ? opt.subscriber_port : opt.port;
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int on = 1;
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&to, sizeof to))
        die("connect");
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    fcntl(c->fd, F_SETFL, O_NONBLOCK);
    c->wants_out = -1;
    c->in_length = c->out_length = c->out_offset = 0;
    watch(c, 0);
}

/* Rules of the modes: who may send now. */

static int is(const char *mode) {
    return !strcmp(opt.mode, mode);
}

static int may_send(const client *c) {
    if (sent >= quota || c->out_length > 1 << 20)
        return 0;
    if (is("fanout"))
        return sent * (uint64_t)opt.clients - delivered < (uint64_t)opt.window * (uint64_t)opt.clients &&
               c->in_flight < opt.window;
    if (c->peer)
        return c->in_flight < opt.window && c->sent - c->peer->received < (uint64_t)opt.window;
    return opt.qos ? c->in_flight < opt.window : c->pings < 2;
}

static void pump(client *c) {
    while (may_send(c))
        put_publish(c);
    flush_some(c);
}

/* The window is never larger than what the broker announces. */
static void note_limits(const uint8_t *p, size_t n) {
    static const uint8_t sizes[256] = {[0x11] = 4, [0x13] = 2, [0x21] = 2, [0x22] = 2, [0x24] = 1,
                                       [0x25] = 1, [0x27] = 4, [0x28] = 1, [0x29] = 1, [0x2a] = 1};
    size_t at = 1;
    while (at + 2 < n) {
        int id = p[at];
        if (id == 0x21) {
            int most = p[at + 1] << 8 | p[at + 2];
            opt.window = opt.window > most ? most : opt.window;
        }
        size_t text = (size_t)p[at + 1] << 8 | p[at + 2];
        at += 1 + (sizes[id] ? sizes[id] : 2 + text);
    }
}

static void finish_pings(void) { /* of what was sent since the last */
    for (int i = 0; i < client_count; i++)
        if (clients[i].role == PUBLISHER && clients[i].pinged) {
            put(&clients[i], "\xc0\x00", 2);
            clients[i].pinged = 0;
            clients[i].pings++;
            flush_some(&clients[i]);
        }
}

static void next_connection(client *c) {
    char id[64];
    if (c->fd >= 0)
        close(c->fd);
    c->fd = -1;
    if (sent >= quota)
        return;
    sent++;
    open_socket(c);
    snprintf(id, sizeof id, "load-%d-%llu", c->index, (unsigned long long)sent);
    put_connect(c, id, 0);
    flush_some(c);
}

static void take_packet(client *c, const uint8_t *p, const uint8_t *body, size_t n) {
    int id = n >= 2 ? body[0] << 8 | body[1] : 0, code = n > 2 ? body[2] : 0;
    switch (p[0] >> 4) {
    case PUBLISH: {
        int qos = p[0] >> 1 & 3;
        size_t topic = (size_t)id;
        if (qos) {
            int number = body[2 + topic] << 8 | body[3 + topic];
            put_answer(c, (qos == 1 ? PUBACK : PUBREC) << 4, number);
        }
        if (p[0] & 1) /* an earlier run has retained it: RETAIN is set in nothing that is live */
            break;
        c->received++;
        delivered++;
        break;
    }
    case PUBREL:
        put_answer(c, PUBCOMP << 4, id);
        break;
    case PUBREC:
        put_answer(c, PUBREL << 4 | 2, id);
        if (code >= 0x80)
            fprintf(stderr, "PUBREC 0x%02x\n", code), exit(2);
        break;
    case PUBACK:
        if (code >= 0x80)
            fprintf(stderr, "PUBACK 0x%02x\n", code), exit(2);
        /* fall through */
    case PUBCOMP:
        c->in_flight--;
        acknowledged++;
        break;
    case PINGRESP:
        c->pings--;
        break;
    case CONNACK:
        if (body[1])
            fprintf(stderr, "CONNACK 0x%02x\n", body[1]), exit(2);
        connected++;
        if (opt.version == 5 && n > 2)
            note_limits(body + 2, n - 2);
        if (c->role == CONNECTING) {
            put(c, "\xe0\x00", 2);
            flush_some(c);
        }
        break;
    case SUBACK:
        if (body[n - 1] >= 0x80)
            fprintf(stderr, "SUBACK 0x%02x\n", body[n - 1]), exit(2);
        c->received = 0;
        break;
    default:
        fprintf(stderr, "packet 0x%02x, code 0x%02x\n", p[0], n ? body[0] : 0);
        exit(2);
    }
}

static void parse(client *c) {
    size_t at = 0;
    while (c->in_length - at >= 2) {
        size_t size = 0, head = 1;
        int shift = 0;
        do {
            if (at + head >= c->in_length)
                goto out;
            size |= (size_t)(c->in[at + head] & 127) << shift;
            shift += 7;
        } while (c->in[at + head++] & 128);
        if (c->in_length - at < head + size)
            break;
        take_packet(c, c->in + at, c->in + at + head, size);
        at += head + size;
    }
out:
    if (at)
        memmove(c->in, c->in + at, c->in_length - at);
    c->in_length -= at;
}

static void read_some(client *c) {
    for (;;) {
        if (c->in_capacity - c->in_length < READ_BYTES / 2) {
            c->in_capacity = c->in_length + READ_BYTES;
            c->in = realloc(c->in, c->in_capacity);
            if (!c->in)
                die("realloc");
        }
        size_t room = c->in_capacity - c->in_length;
        ssize_t n = recv(c->fd, c->in + c->in_length, room, 0);
        if (n < 0 && errno == EAGAIN)
            return;
        if (n <= 0 && c->role == CONNECTING) {
            next_connection(c);
            return;
        }
        if (n <= 0)
            die("the broker has closed a connection");
        c->in_length += (size_t)n;
        parse(c);
        if ((size_t)n < room)
            return;
    }
}

static void serve(int wait_ms) {
    struct epoll_event events[256];
    int n = epoll_wait(epoll_fd, events, 256, wait_ms);
    for (int i = 0; i < n; i++) {
        client *c = events[i].data.ptr;
        if (c->fd < 0)
            continue;
        if (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR))
            read_some(c);
        if (c->fd >= 0 && c->role != CONNECTING)
            flush_some(c);
    }
}

static double deadline;

static void until(uint64_t *counter, uint64_t value) {
    while (*counter < value) {
        if (now_s() > deadline) {
            fprintf(stderr, "gave up: %llu of %llu\n", (unsigned long long)*counter,
                    (unsigned long long)value);
            exit(3);
        }
        serve(100);
    }
}

/* Set-up: connections and subscriptions, some at a time. */

static void log_in(client *c, int role, int index, int lasting) {
    char id[64];
    c->role = role;
    c->index = index;
    c->in_flight = c->pings = 0;
    c->in_capacity = c->in_length = c->out_capacity = 0;
    open_socket(c);
    snprintf(id, sizeof id, "load-%c-%d", role == PUBLISHER ? 'p' : 's', (int)(c - clients));
    put_connect(c, id, lasting);
    flush_some(c);
    until(&connected, connected + 1);
    if (role == SUBSCRIBER) {
        char topic[64];
        topic_of(topic, sizeof topic, index);
        put_subscribe(c, topic);
        c->received = 1; /* SUBACK sets it to 0 */
        flush_some(c);
        while (c->received && now_s() < deadline)
            serve(100);
    }
}

static void set_up(void) {
    int n = opt.clients;
    client_count = is("pairs") ? 2 * n : is("fanout") ? n + 1 : n;
    clients = calloc((size_t)client_count, sizeof *clients);
    for (int i = 0; i < client_count; i++)
        clients[i].fd = -1;
    if (is("publish"))
        for (int i = 0; i < n; i++)
            log_in(&clients[i], PUBLISHER, i, 0);
    if (is("pairs"))
        for (int i = 0; i < n; i++) {
            log_in(&clients[n + i], SUBSCRIBER, i, opt.lasting);
            log_in(&clients[i], PUBLISHER, i, opt.lasting);
            clients[i].peer = &clients[n + i];
        }
    if (is("fanout")) {
        for (int i = 0; i < n; i++)
            log_in(&clients[i + 1], SUBSCRIBER, 0, opt.lasting);
        log_in(&clients[0], PUBLISHER, 0, opt.lasting);
        clients[0].peer = &clients[1];
    }
}

/* Whether all that was sent has arrived where it is to. */
static int is_done(void) {
    if (sent < quota)
        return 0;
    if (is("connect"))
        return connected >= quota;
    if (opt.qos && acknowledged < sent)
        return 0;
    if (is("fanout"))
        return delivered >= sent * (uint64_t)opt.clients;
    if (is("pairs"))
        return delivered >= sent;
    if (!opt.qos) {
        finish_pings();
        for (int i = 0; i < client_count; i++)
            if (clients[i].pings || clients[i].pinged)
                return 0;
    }
    return 1;
}

static void run_to(uint64_t messages) {
    quota = messages;
    if (is("connect"))
        for (int i = 0; i < client_count; i++) {
            clients[i].role = CONNECTING;
            clients[i].index = i;
            next_connection(&clients[i]);
        }
    while (!is_done()) {
        if (now_s() > deadline) {
            fprintf(stderr, "gave up: %llu sent, %llu acknowledged, %llu delivered\n",
                    (unsigned long long)sent, (unsigned long long)acknowledged,
                    (unsigned long long)delivered);
            exit(3);
        }
        for (int i = 0; i < client_count; i++)
            if (clients[i].role == PUBLISHER && may_send(&clients[i]))
                pump(&clients[i]);
        serve(1);
    }
}

/* Sessions that last are ended: each client connects once more. */
static void clean_up(void) {
    for (int i = 0; i < client_count; i++) {
        if (clients[i].fd < 0)
            continue;
        put(&clients[i], "\xe0\x00", 2);
        flush_some(&clients[i]);
        close(clients[i].fd);
        clients[i].fd = -1;
    }
    for (int i = 0; opt.lasting && i < client_count; i++) {
        int role = clients[i].role;
        char id[64];
        open_socket(&clients[i]);
        snprintf(id, sizeof id, "load-%c-%d", role == PUBLISHER ? 'p' : 's', i);
        put_connect(&clients[i], id, 0);
        flush_some(&clients[i]);
        until(&connected, connected + 1);
        close(clients[i].fd);
        clients[i].fd = -1;
    }
}

static int mode_idle(void) {
    double before = rss_kib(), cpu = cpu_s(), began = now_s();
    set_up();
    for (int i = 0; i < client_count; i++)
        log_in(&clients[i], PUBLISHER, i, 0);
    double took = now_s() - began;
    double used = cpu_s() - cpu;
    usleep(500000); /* whoever frees what only a connect needs does it now */
    double after = rss_kib();
    printf("{\"mode\": \"idle\", \"connections\": %d, \"seconds\": %.3f, \"cpu_us\": %.2f, "
           "\"kib_each\": %.2f}\n",
           client_count, took, used * 1e6 / client_count, (after - before) / client_count);
    clean_up();
    return 0;
}

static int mode_run(void) {
    set_up();
    if (opt.warm_up)
        run_to(opt.warm_up);
    double began = now_s(), cpu = cpu_s(), own = (double)clock() / CLOCKS_PER_SEC;
    uint64_t sent_before = sent, delivered_before = delivered;
    run_to(opt.warm_up + opt.messages);
    double took = now_s() - began, used = cpu_s() - cpu;
    own = (double)clock() / CLOCKS_PER_SEC - own;
    double messages = (double)(sent - sent_before), deliveries = (double)(delivered - delivered_before);
    double units = is("fanout") ? deliveries : messages;
    printf("{\"mode\": \"%s\", \"qos\": %d, \"messages\": %.0f, \"deliveries\": %.0f, \"seconds\": %.3f, "
           "\"rate\": %.0f, \"cpu_us\": %.3f, \"own_cpu_us\": %.3f, \"rss_mib\": %.1f}\n",
           opt.mode, opt.qos, messages, deliveries, took, units / took, used * 1e6 / units,
           own * 1e6 / units, rss_kib() / 1024);
    if (!is("connect"))
        clean_up();
    return 0;
}

static int usage(void) {
    fprintf(stderr,
            "mqttload publish|pairs|fanout|connect|idle -p PORT [-S PORT] [-I PID,...] [-n MESSAGES] [-W WARM-UP]\n"
            "  [-c CLIENTS] [-q QOS] [-s BYTES] [-w WINDOW] [-v 4|5] [-l] [-r] [-x] [-T SECONDS] [-u USER -P PASSWORD]\n"
            "  -S: of subscribers; -l: sessions outlive their connections; -r: messages are retained; -x: they have properties of 5.0; the broker is on 127.0.0.1\n");
    return 2;
}

int main(int argc, char **argv) {
    if (argc < 2)
        return usage();
    opt.mode = argv[1];
    optind = 2;
    for (int o; (o = getopt(argc, argv, "p:S:I:n:W:c:q:s:w:v:lrxT:u:P:")) != -1;)
        switch (o) {
        case 'p': opt.port = atoi(optarg); break;
        case 'S': opt.subscriber_port = atoi(optarg); break;
        case 'I':
            for (char *t = strtok(optarg, ","); t && opt.pid_count < 64; t = strtok(0, ","))
                opt.pids[opt.pid_count++] = atoi(t);
            break;
        case 'n': opt.messages = strtoull(optarg, 0, 10); break;
        case 'W': opt.warm_up = strtoull(optarg, 0, 10); break;
        case 'c': opt.clients = atoi(optarg); break;
        case 'q': opt.qos = atoi(optarg); break;
        case 's': opt.size = atoi(optarg); break;
        case 'w': opt.window = atoi(optarg); break;
        case 'v': opt.version = atoi(optarg); break;
        case 'l': opt.lasting = 1; break;
        case 'r': opt.retain = 1; break;
        case 'x': opt.properties = 1; break;
        case 'T': opt.seconds = atof(optarg); break;
        case 'u': opt.user = optarg; break;
        case 'P': opt.password = optarg; break;
        default: return usage();
        }
    if (!opt.port || opt.clients < 1 || opt.qos < 0 || opt.qos > 2 || opt.size < 0 || opt.size > 60000 ||
        opt.window < 1 || opt.window > 30000 || (opt.version != 4 && opt.version != 5) ||
        (opt.user && !opt.password) || (opt.properties && opt.version != 5) || !(is("publish") || is("pairs") || is("fanout") || is("connect") || is("idle")))
        return usage();
    struct rlimit files = {0};
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    deadline = now_s() + opt.seconds;
    return is("idle") ? mode_idle() : mode_run();
}
