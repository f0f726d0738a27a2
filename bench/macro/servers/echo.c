/* Echo servers in C, the floor: one epoll thread, one buffer of 68 KiB for all connections, as
   gopoll's own: with 64 KiB a message of that size is no short read, and costs another.
   Started by measure.py: echo NAME [PORT] prints the port.

   c-et         edge-triggered, registered once with Go's mask; a short read ends a turn, which is
                sound because a hang-up that came with it is looked at (EPOLLRDHUP)
   c-et-eagain  the same, but reads until EAGAIN, as Go does
   c-et-keep    as c-et, but each connection keeps its last message until the next has come, as a
                coroutine's variable does: what that costs the caches is nobody's overhead
   c-lt         level-triggered, one read an event

   What cannot be sent at once is kept until the socket takes it. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum { READ_BYTES = 69632, BACKLOG = 4096, EVENTS = 256 };

struct conn {
    int fd;
    bool waits;       /* level-triggered: EPOLLOUT is asked for instead of EPOLLIN */
    uint32_t at, end; /* what is left to be sent, in rest */
    char *rest;
    char *kept; /* c-et-keep: the last message */
};

static bool edge = true, stop_short = true, keep = false;
static int epfd;
static char shared[READ_BYTES];
static char *buffer = shared; /* c-et-keep: what nobody keeps now */

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static void watch(int op, int fd, uint32_t events, void *data)
{
    struct epoll_event ev = {.events = events, .data.ptr = data};
    if (epoll_ctl(epfd, op, fd, &ev) != 0)
        fail("epoll_ctl");
}

static void end(struct conn *c)
{
    close(c->fd);
    free(c->rest);
    free(c->kept);
    free(c);
}

/* The message in the buffer takes the place of the last one, whose memory is the next buffer. */
static void keep_message(struct conn *c)
{
    char *was = c->kept;
    c->kept = buffer;
    if (was == NULL && (was = malloc(READ_BYTES)) == NULL)
        fail("malloc");
    buffer = was;
}

/* Send all of it, or keep the rest; return -1 if the peer has gone. */
static int reply(struct conn *c, const char *data, size_t n)
{
    while (n > 0) {
        ssize_t sent = send(c->fd, data, n, MSG_NOSIGNAL);
        if (sent < 0) {
            if (errno == EINTR)
                continue;
            if (errno != EAGAIN)
                return -1;
            if (c->rest == NULL && (c->rest = malloc(READ_BYTES)) == NULL)
                fail("malloc");
            memmove(c->rest, data, n);
            break;
        }
        data += sent;
        n -= (size_t)sent;
    }
    c->at = 0;
    c->end = (uint32_t)n;
    if (!edge && c->waits != (n > 0)) {
        c->waits = n > 0;
        watch(EPOLL_CTL_MOD, c->fd, c->waits ? EPOLLOUT : EPOLLIN, c);
    }
    return 0;
}

static void serve(struct conn *c, uint32_t events)
{
    bool ended = events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR);
    if (c->end > 0 && reply(c, c->rest + c->at, c->end - c->at) < 0)
        return end(c);
    if (!(events & ~(uint32_t)EPOLLOUT) && edge && c->rest == NULL)
        return; /* the edge of a new socket: nothing was kept back, nothing has come */
    while (c->end == 0) {
        char *data = buffer;
        ssize_t n = recv(c->fd, data, READ_BYTES, 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            return;
        if (n > 0 && keep)
            keep_message(c);
        if (n <= 0 || reply(c, data, (size_t)n) < 0)
            return end(c);
        if (!edge || (stop_short && n < READ_BYTES && !ended))
            return;
    }
}

static void accept_all(int listener)
{
    for (;;) {
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) {
            if (errno == EAGAIN || errno == ECONNABORTED || errno == EINTR)
                return;
            fail("accept");
        }
        struct conn *c = calloc(1, sizeof *c);
        if (c == NULL)
            fail("calloc");
        c->fd = fd;
        watch(EPOLL_CTL_ADD, fd, edge ? EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET : EPOLLIN, c);
    }
}

static int listening(int port)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    socklen_t len = sizeof at;
    int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0 ||
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) != 0 ||
        bind(fd, (struct sockaddr *)&at, sizeof at) != 0 || listen(fd, BACKLOG) != 0 ||
        getsockname(fd, (struct sockaddr *)&at, &len) != 0)
        fail("listen");
    printf("%d\n", ntohs(at.sin_port));
    fflush(stdout);
    return fd;
}

int main(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : "";
    edge = strcmp(name, "c-lt") != 0;
    stop_short = strcmp(name, "c-et-eagain") != 0;
    keep = strcmp(name, "c-et-keep") == 0;
    if (edge && stop_short && !keep && strcmp(name, "c-et") != 0) {
        fprintf(stderr, "usage: echo c-et|c-et-eagain|c-et-keep|c-lt [PORT]\n");
        return 1;
    }
    if (keep && (buffer = malloc(READ_BYTES)) == NULL)
        fail("malloc");
    if ((epfd = epoll_create1(EPOLL_CLOEXEC)) < 0)
        fail("epoll_create1");
    int listener = listening(argc > 2 ? atoi(argv[2]) : 0);
    watch(EPOLL_CTL_ADD, listener, EPOLLIN, NULL);
    for (;;) {
        struct epoll_event events[EVENTS];
        int n = epoll_wait(epfd, events, EVENTS, -1);
        if (n < 0 && errno != EINTR)
            fail("epoll_wait");
        for (int i = 0; i < n; i++)
            if (events[i].data.ptr == NULL)
                accept_all(listener);
            else
                serve(events[i].data.ptr, events[i].events);
    }
}
