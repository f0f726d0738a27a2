/* The floors of the micro benches: the fewest system calls that do it, and their time.
 *
 * Called by rivals.py through ctypes, without the GIL. Every function returns ns, or -errno. */

#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MOST = 1024, MASK = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET };

static int64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

/* ns between two looks at the clock that have nothing between them */
static int64_t clock_cost(void)
{
    int64_t least = INT64_MAX;
    for (int i = 0; i < 20; i++) {
        int64_t began = now(), took = now() - began;
        if (took < least)
            least = took;
    }
    return least;
}

/* Register fd and take it out again, count times. */
int64_t floor_register(int epfd, int fd, int count)
{
    struct epoll_event event = { .events = MASK, .data.fd = fd };
    int64_t began = now();
    for (int i = 0; i < count; i++)
        if (epoll_ctl(epfd, EPOLL_CTL_ADD, fd, &event) || epoll_ctl(epfd, EPOLL_CTL_DEL, fd, NULL))
            return -errno;
    return now() - began;
}

/* Take `ready` events out of each of `number` epoll instances. */
int64_t floor_take(const int *epfds, int number, int ready)
{
    struct epoll_event events[MOST];
    int64_t cost = clock_cost(), began = now();
    for (int i = 0; i < number; i++)
        for (int left = ready; left > 0;) {
            int n = epoll_wait(epfds[i], events, MOST, 0);
            if (n <= 0)
                return n ? -errno : -EAGAIN;
            left -= n;
        }
    return now() - began - cost;
}

/* Poll where nothing is ready. */
int64_t floor_poll(int epfd, int count)
{
    struct epoll_event events[128];
    int64_t began = now();
    for (int i = 0; i < count; i++) {
        int n = epoll_wait(epfd, events, 128, 0);
        if (n)
            return n < 0 ? -errno : -EEXIST;
    }
    return now() - began;
}

/* Have a byte come in, take its event, read it. */
int64_t floor_park(int epfd, int ours, int theirs, int count)
{
    struct epoll_event event;
    char byte = 'x';
    int64_t began = now();
    for (int i = 0; i < count; i++)
        if (send(theirs, &byte, 1, 0) != 1 || epoll_wait(epfd, &event, 1, 0) != 1 ||
            recv(ours, &byte, 1, 0) != 1)
            return -(errno ? errno : EIO);
    return now() - began;
}

struct sleeper {
    int epfd, mine, other, count;
};

static int wait_and_wake(struct sleeper *s, int first)
{
    struct epoll_event event;
    uint64_t value = 1;
    for (int i = 0; i < s->count; i++) {
        if (first && write(s->other, &value, 8) != 8)
            return errno;
        if (epoll_wait(s->epfd, &event, 1, -1) != 1 || read(s->mine, &value, 8) != 8)
            return errno;
        value = 1;
        if (!first && write(s->other, &value, 8) != 8)
            return errno;
    }
    return 0;
}

static void *answering(void *argument)
{
    return (void *)(intptr_t)wait_and_wake(argument, 0);
}

/* Wake another thread's epoll_wait by an eventfd and be woken by it, count times. */
int64_t floor_wake(int count)
{
    int event[2], epfd[2];
    pthread_t thread;
    void *said;
    for (int i = 0; i < 2; i++) {
        struct epoll_event in = { .events = EPOLLIN | EPOLLET };
        event[i] = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
        epfd[i] = epoll_create1(EPOLL_CLOEXEC);
        if (event[i] < 0 || epfd[i] < 0 || epoll_ctl(epfd[i], EPOLL_CTL_ADD, event[i], &in))
            return -errno;
    }
    struct sleeper here = { epfd[0], event[0], event[1], count };
    struct sleeper there = { epfd[1], event[1], event[0], count };
    int rc = pthread_create(&thread, NULL, answering, &there);
    if (rc)
        return -rc;
    int64_t began = now();
    rc = wait_and_wake(&here, 1);
    int64_t took = now() - began;
    pthread_join(thread, &said);
    for (int i = 0; i < 2; i++) {
        close(event[i]);
        close(epfd[i]);
    }
    rc = rc ? rc : (int)(intptr_t)said;
    return rc ? -rc : took;
}

/* Take the next event, which has to be fd's, and read `size` bytes. */
static int take_message(int epfd, int fd, char *buffer, int size)
{
    struct epoll_event event;
    for (;;) {
        int n = epoll_wait(epfd, &event, 1, -1);
        if (n != 1)
            return errno;
        if (event.data.fd == fd && event.events & EPOLLIN)
            break;
    }
    return recv(fd, buffer, size, 0) == size ? 0 : (errno ? errno : EIO);
}

/* Pass a message to and fro between two descriptors that stand in one epoll instance. */
int64_t floor_trips(int epfd, int ours, int theirs, int size, int count)
{
    char *buffer = calloc(1, size);
    int rc = 0;
    if (buffer == NULL)
        return -ENOMEM;
    int64_t began = now();
    for (int i = 0; i < count && rc == 0; i++) {
        if (send(ours, buffer, size, 0) != size)
            rc = errno ? errno : EIO;
        if (rc == 0)
            rc = take_message(epfd, theirs, buffer, size);
        if (rc == 0 && send(theirs, buffer, size, 0) != size)
            rc = errno ? errno : EIO;
        if (rc == 0)
            rc = take_message(epfd, ours, buffer, size);
    }
    int64_t took = now() - began;
    free(buffer);
    return rc ? -rc : took;
}

/* Connect to a listener, accept, close the accepted end, see that, close. */
int64_t floor_connect(int listener, int port, int count)
{
    struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(port) };
    char byte;
    int yes = 1;
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int64_t began = now();
    for (int i = 0; i < count; i++) {
        int ours = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (ours < 0 || setsockopt(ours, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes) ||
            connect(ours, (struct sockaddr *)&to, sizeof to))
            return -errno;
        int theirs = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (theirs < 0 || setsockopt(theirs, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes))
            return -errno;
        close(theirs);
        if (recv(ours, &byte, 1, 0) != 0)
            return -EIO;
        close(ours);
    }
    return now() - began;
}

/* Allocate a block and free it: what a pollDesc would cost without a cache of its own. */
int64_t floor_malloc(int size, int count)
{
    int64_t began = now();
    for (int i = 0; i < count; i++) {
        void *volatile block = malloc(size);
        if (block == NULL)
            return -ENOMEM;
        free(block);
    }
    return now() - began;
}
