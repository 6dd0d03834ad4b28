// Stands in for the packed Python program: says how it was started, then does what BEHAVIOUR beside it says.
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

extern char **environ;

static void read_beside(const char *name, char *text, size_t size) {
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", getenv("APPLIANCE_BUNDLE"), name);
    FILE *file = fopen(path, "r");
    size_t length = file ? fread(text, 1, size - 1, file) : 0;
    if (file)
        fclose(file);
    while (length && text[length - 1] == '\n')
        length--;
    text[length] = 0;
}

// As the daemon does: slowly it begins, takes its lock, and lets other launchers have their turn.
static void become_daemon(const char *root) {
    char path[4096];
    sleep(1);
    snprintf(path, sizeof path, "%s/run", root);
    mkdir(path, 0755);
    strcat(path, "/appliance");
    mkdir(path, 0755);
    strcat(path, "/lock");
    int lock = open(path, O_RDWR | O_CREAT, 0644);
    if (lock < 0 || flock(lock, LOCK_EX | LOCK_NB))
        exit(5);
    const char *turn = getenv("APPLIANCE_START_FD");
    if (turn)
        close(atoi(turn));
    while (1)
        pause();
}

int main(int argc, char **argv) {
    char line[8192], version[64], behaviour[64];
    read_beside("VERSION", version, sizeof version);
    read_beside("BEHAVIOUR", behaviour, sizeof behaviour);
    const char *report = getenv("REPORT");
    FILE *out = report ? fopen(report, "a") : stdout;
    size_t used = snprintf(line, sizeof line, "VERSION=%s\x1fPID=%d\x1f" "ARGUMENTS=", version, getpid());
    for (int i = 0; i < argc; i++)
        used += snprintf(line + used, sizeof line - used, "%s%s", i ? " " : "", argv[i]);
    for (char **at = environ; *at && used < sizeof line; at++)
        used += snprintf(line + used, sizeof line - used, "\x1f%s", *at);
    fprintf(out, "%s\n", line);
    fflush(out);
    if (!strcmp(behaviour, "daemon"))
        become_daemon(argv[2]);
    if (!strcmp(behaviour, "die"))
        raise(SIGKILL);
    while (!strcmp(behaviour, "stay"))
        pause();
    return 0;
}
