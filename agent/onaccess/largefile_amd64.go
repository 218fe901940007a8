package onaccess

// oLargefile is the kernel's O_LARGEFILE. The libraries define it as 0 on
// 64-bit machines because open(2) adds it there; fanotify_init(2) does not,
// and without it the kernel cannot give us files above 2 GB.
const oLargefile = 0o100000
