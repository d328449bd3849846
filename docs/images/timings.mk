# What the pictures of the timings show being built: the core of this project, optimised as a whole by a serial link.
sources := $(filter-out win32%,$(wildcard *.c))

libjobserver.so: $(sources:.c=.o)
	gcc -shared -O3 -flto=1 -flto-partition=none -o $@ $^ -pthread

%.o: %.c
	gcc -std=c11 -O2 -g -flto -fPIC -c -o $@ $<
