/* Windows: objects that only one user can open. */
#include "win32.h"

#if defined(_WIN32)

#include "jobserver.h"

/* Room for a user's number in a token. */
union user {
    TOKEN_USER of;
    BYTE space[sizeof(TOKEN_USER) + SECURITY_MAX_SID_SIZE];
};

/* Finds out who the user of this process is. */
static int find_user(union user *user) {
    HANDLE token;
    if (!OpenProcessToken(GetCurrentProcess(), TOKEN_QUERY, &token)) {
        return jobserver_last_error();
    }
    DWORD size;
    BOOL found = GetTokenInformation(token, TokenUser, user, sizeof *user, &size);
    int result = found ? 0 : jobserver_last_error();
    CloseHandle(token);
    return result;
}

int jobserver_private_fill(struct jobserver_private *private_to_user, DWORD rights) {
    union user user;
    int result = find_user(&user);
    if (result < 0) {
        return result;
    }
    ACL *list = &private_to_user->access.list;
    SECURITY_DESCRIPTOR *descriptor = &private_to_user->descriptor;
    if (!InitializeAcl(list, sizeof private_to_user->access, ACL_REVISION) ||
        !AddAccessAllowedAce(list, ACL_REVISION, rights, user.of.User.Sid) ||
        !InitializeSecurityDescriptor(descriptor, SECURITY_DESCRIPTOR_REVISION) ||
        !SetSecurityDescriptorDacl(descriptor, TRUE, list, FALSE)) {
        return jobserver_last_error();
    }
    private_to_user->attributes =
        (SECURITY_ATTRIBUTES){.nLength = sizeof private_to_user->attributes, .lpSecurityDescriptor = descriptor};
    return 0;
}

#endif
