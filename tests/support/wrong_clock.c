/* A host whose clock is wrong by WRONG_BY seconds, for what loads this before its C library. The clocks that nobody sets
   (monotonic, since the boot) stay right. Debian's faketime changes or breaks these: its sleep fails, or never ends. */
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t clock, struct timespec *now) {
  int failed = syscall(SYS_clock_gettime, clock, now);
  if (!failed && clock == CLOCK_REALTIME) now->tv_sec += atol(getenv("WRONG_BY"));
  return failed;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
  struct timespec read;
  (void)zone;
  clock_gettime(CLOCK_REALTIME, &read);
  now->tv_sec = read.tv_sec;
  now->tv_usec = read.tv_nsec / 1000;
  return 0;
}

time_t time(time_t *told) {
  struct timespec read;
  clock_gettime(CLOCK_REALTIME, &read);
  if (told) *told = read.tv_sec;
  return read.tv_sec;
}
