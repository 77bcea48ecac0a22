/* Gives a program that has no option for it a client certificate: each context that OpenSSL makes in it presents the one
 * named by CLIENT_CERTIFICATE and CLIENT_KEY. To be loaded by LD_PRELOAD. The few names of OpenSSL stand here, so that
 * its headers need not be installed. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

enum { PEM = 1 };

int SSL_CTX_use_certificate_file(void *context, const char *file, int type);
int SSL_CTX_use_PrivateKey_file(void *context, const char *file, int type);

void *SSL_CTX_new(const void *method) {
    void *(*make)(const void *) = (void *(*)(const void *))dlsym(RTLD_NEXT, "SSL_CTX_new");
    const char *certificate = getenv("CLIENT_CERTIFICATE"), *key = getenv("CLIENT_KEY");
    void *context = make ? make(method) : NULL;
    if (!context || !certificate || !key || SSL_CTX_use_certificate_file(context, certificate, PEM) != 1 ||
        SSL_CTX_use_PrivateKey_file(context, key, PEM) != 1) {
        fputs("client_certificate: cannot use CLIENT_CERTIFICATE and CLIENT_KEY\n", stderr);
        exit(1);
    }
    return context;
}
