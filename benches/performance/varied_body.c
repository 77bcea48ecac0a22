/* Lets a program that sends one file as the body of each request send others in turn: each time it begins to read its file,
 * it is given the next piece of the file that BODIES names, as long as its own. To be loaded by LD_PRELOAD. */

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

static const char *bodies;
static size_t each, all, next;

static void start(int own) {
    const char *name = getenv("BODIES");
    int file = name ? open(name, O_RDONLY) : -1;
    struct stat of_own, of_bodies;
    if (file < 0 || fstat(own, &of_own) != 0 || fstat(file, &of_bodies) != 0) {
        fputs("varied_body: cannot use BODIES\n", stderr);
        exit(1);
    }
    each = of_own.st_size;
    all = of_bodies.st_size;
    bodies = mmap(NULL, all, PROT_READ, MAP_PRIVATE | MAP_POPULATE, file, 0);
    close(file);
    if (bodies == MAP_FAILED || each == 0 || all == 0 || all % each != 0) {
        fputs("varied_body: BODIES does not hold pieces as long as the program's own file\n", stderr);
        exit(1);
    }
}

ssize_t pread(int own, void *into, size_t room, off_t from) {
    if (!bodies) {
        start(own);
    }
    /* Whoever reads in parts would mix bodies. */
    if (from != 0 || room < each) {
        errno = EINVAL;
        return -1;
    }
    memcpy(into, bodies + next, each);
    next = (next + each) % all;
    return each;
}
