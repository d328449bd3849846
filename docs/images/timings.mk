# What the pictures of the timings show being built: the core of this project, optimised as a whole by a serial link.
CFLAGS = -std=c11 -O2 -flto -fPIC -I$(SOURCE)
sources := $(filter-out win32%,$(notdir $(wildcard $(SOURCE)/*.c)))

libjobserver.so: $(sources:.c=.o)
	gcc -shared -O3 -flto=1 -flto-partition=one -o $@ $^ -pthread

%.o: $(SOURCE)/%.c
	gcc $(CFLAGS) -c -o $@ $<
