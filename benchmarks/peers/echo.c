/* The contestant `c` over UDP: sends every datagram back, one call in and one call out. */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

int main(void) {
    static char datagram[65536];
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_addr = {.s_addr = htonl(INADDR_LOOPBACK)}};
    socklen_t length = sizeof address;
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, length) ||
        getsockname(fd, (struct sockaddr *)&address, &length)) {
        perror("bind");
        return EXIT_FAILURE;
    }
    printf("listening on 127.0.0.1:%d\n", ntohs(address.sin_port));
    fflush(stdout);
    for (;;) {
        struct sockaddr_in peer;
        socklen_t peer_length = sizeof peer;
        ssize_t count =
            recvfrom(fd, datagram, sizeof datagram, 0, (struct sockaddr *)&peer, &peer_length);
        if (count >= 0)
            sendto(fd, datagram, (size_t)count, 0, (struct sockaddr *)&peer, peer_length);
    }
}
