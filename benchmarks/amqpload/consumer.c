/* Consumers: acks, and the checks that every message came once and in order. */
#include "amqpload.h"

hist end_to_end_latency;
gaps delivery_gaps;
uint8_t **seen;
size_t *seen_bytes;
uint64_t *last_sequence;
int seen_pubs, seen_priorities;

void put_ack(conn *c, uint64_t tag, int mult) {
    ob_need(&c->out, 21);
    uint8_t *o = c->out.p + c->out.len;
    static const uint8_t h[11] = {1, 0, 1, 0, 0, 0, 13, 0, 60, 0, 80};
    memcpy(o, h, 11);
    uint64_t v = __builtin_bswap64(tag);
    memcpy(o + 11, &v, 8);
    o[19] = (uint8_t)mult;
    o[20] = 0xCE;
    c->out.len += 21;
}

static void check_body(conn *c, const uint8_t *b, uint32_t n, uint64_t now) {
    if (n < 16) {
        count.errors++;
        return;
    }
    uint64_t ts;
    uint32_t pi, sq;
    memcpy(&ts, b, 8);
    memcpy(&pi, b + 8, 4);
    memcpy(&sq, b + 12, 4);
    if (pi >= (uint32_t)seen_pubs) {
        count.errors++;
        return;
    }
    if (measuring)
        h_add(&end_to_end_latency, now > ts ? now - ts : 0);
    size_t si = (size_t)(opt.fanout ? c->cq : 0) * (size_t)seen_pubs + pi;
    if (bm_get(seen[si], seen_bytes[si], sq))
        count.duplicates++;
    else
        bm_set(&seen[si], &seen_bytes[si], sq);
    size_t line = (size_t)c->idx * (size_t)opt.queues + (size_t)c->cq;
    line = line * (size_t)seen_priorities + (size_t)priority_of((int)pi, sq);
    uint64_t *l = &last_sequence[line * (size_t)seen_pubs + pi];
    if (c->redel)
        count.redelivered++;
    else {
        if ((uint64_t)sq + 1 <= *l)
            count.reordered++;
        *l = (uint64_t)sq + 1;
    }
}

static void message_done(conn *c) {
    c->cstate = 0;
    count.received++;
    if (opt.ack_every == 1)
        put_ack(c, c->last_tag, 0);
    else if (opt.ack_every > 1 && ++c->unacked >= (uint64_t)opt.ack_every) {
        put_ack(c, c->last_tag, 1);
        c->unacked = 0;
    }
}

int consumer_frame(conn *c, int type, const uint8_t *p, uint32_t n, uint64_t now) {
    if (type == 1) {
        unsigned cls = g16(p), m = g16(p + 2);
        if (cls == 60 && m == 60) {
            int q = 0;
            const uint8_t *t = p + 5;
            for (int i = 1; i < p[4]; i++)
                q = q * 10 + (t[i] - '0');
            c->cq = q < opt.queues ? q : 0;
            c->last_tag = g64(p + 5 + p[4]);
            c->redel = p[13 + p[4]] & 1;
            c->cstate = 1;
        } else if (cls == 60 && m == 30) {
            count.cancels++;
            fprintf(stderr, "consumer cancelled\n");
        } else if ((cls == 20 && m == 40) || (cls == 10 && m == 50)) {
            char w[200];
            snprintf(w, sizeof w, "closed by server: %u %.*s", g16(p + 4), (int)p[6], p + 7);
            lose(c, w);
            return -1;
        }
    } else if (type == 2) {
        c->body_left = g64(p + 4);
        c->cstate = 2;
        if (!c->body_left)
            message_done(c);
    } else if (type == 3) {
        if (c->cstate == 2) {
            check_body(c, p, n, now);
            c->cstate = 3;
        }
        count.bytes += n;
        c->body_left = c->body_left > n ? c->body_left - n : 0;
        if (!c->body_left)
            message_done(c);
    }
    return 0;
}