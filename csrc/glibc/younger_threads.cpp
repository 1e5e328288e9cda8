// Of glibc 2.32; the headers of libstdc++ read it. "There may be several threads" is always right.
// Weak, for whoever links libmipruner.a with a glibc that has it.
extern "C" {
extern char __libc_single_threaded;
__attribute__((weak, visibility("hidden"))) char __libc_single_threaded = 0;
}
