// Unix sockets: connections accepted many at a time, the process at the other end, whether it has gone, datagrams.
// Wrapped by src/system/unix-sockets.ts and src/system/datagram.ts.
//
// Contract and threads: see sys.cc. No call waits. The caller owns the descriptors that `acceptWaiting` returns, which are
// close-on-exec and do not block.
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "host/sys.h"

namespace ebbtide::sys {
namespace {

// Returns 0 or -1, as getsockopt(2).
int readPeer(int fd, ucred* peer) {
  socklen_t size = sizeof *peer;
  return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, peer, &size);
}

// A Buffer with the pid and the uid, 32 bits each.
Napi::Value peerCredentialsCall(Info info) {
  return returnErrno(info, [&] {
    ucred peer{};
    check(readPeer(numberArgument<int>(info, 0), &peer));
    std::vector<char> bytes(sizeof peer.pid + sizeof peer.uid);
    std::memcpy(bytes.data(), &peer.pid, sizeof peer.pid);
    std::memcpy(bytes.data() + sizeof peer.pid, &peer.uid, sizeof peer.uid);
    return toBuffer(info, bytes);
  });
}

// (listening, most): accepts the connections that wait, up to a number of them. Returns a Uint32Array with the
// descriptor, the pid and the uid of each. REQUIRES: the listening socket does not block.
Napi::Value acceptWaitingCall(Info info) {
  return returnErrno(info, [&] {
    const int listening = numberArgument<int>(info, 0);
    const size_t most = numberArgument<uint32_t>(info, 1);
    std::vector<uint32_t> found;
    found.reserve(3 * most);
    while (found.size() < 3 * most) {
      Descriptor connection(accept4(listening, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
      if (connection.get() < 0) {
        if (errno == EINTR || errno == ECONNABORTED) continue;
        // Also an error, such as no more descriptors: libuv meets and reports it with the next connection.
        break;
      }
      ucred peer{};
      if (readPeer(connection.get(), &peer) != 0) continue;
      found.push_back(static_cast<uint32_t>(connection.release()));
      found.push_back(static_cast<uint32_t>(peer.pid));
      found.push_back(peer.uid);
    }
    Napi::Uint32Array array = Napi::Uint32Array::New(info.Env(), found.size());
    if (!found.empty()) std::memcpy(array.Data(), found.data(), found.size() * sizeof found[0]);
    return Napi::Value(array);
  });
}

// (fd): whether the other end of a connected socket is closed, however much of what it sent is unread. One that only
// sends no more is not.
Napi::Value hasHungUpCall(Info info) {
  return returnErrno(info, [&] {
    pollfd one{numberArgument<int>(info, 0), 0, 0};
    const int ready = poll(&one, 1, 0);
    check(ready < 0 ? -1 : 0);
    return Napi::Value(Napi::Boolean::New(info.Env(), (one.revents & (POLLHUP | POLLERR)) != 0));
  });
}

// (fd): another descriptor of the same connection, close-on-exec, which the caller owns; or a negative errno.
Napi::Value duplicateCall(Info info) {
  return returnErrno(info, [&] {
    const int fd = fcntl(numberArgument<int>(info, 0), F_DUPFD_CLOEXEC, 0);
    return Napi::Value(Napi::Number::New(info.Env(), fd < 0 ? -errno : fd));
  });
}

// A datagram to a unix socket; `@` begins the name of an abstract one. Does not wait: EAGAIN when the receiver's queue
// is full.
Napi::Value sendDatagramCall(Info info) {
  return returnErrno(info, [&] {
    const std::string to = bytesArgument(info, 0);
    const std::string bytes = bytesArgument(info, 1);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (to.empty() || to.size() >= sizeof address.sun_path) throw Errno{EINVAL};
    std::memcpy(address.sun_path, to.data(), to.size());
    const bool isAbstract = to[0] == '@';
    if (isAbstract) address.sun_path[0] = '\0';
    const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + to.size() + (isAbstract ? 0 : 1));
    const Descriptor sender(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    if (sender.get() < 0) throw Errno{errno};
    const auto* name = reinterpret_cast<const sockaddr*>(&address);
    if (sendto(sender.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT, name, size) < 0) throw Errno{errno};
    return success(info);
  });
}

}  // namespace

void exportSockets(Napi::Env env, Napi::Object exports) {
  exports.Set("peerCredentials", Napi::Function::New<peerCredentialsCall>(env));
  exports.Set("acceptWaiting", Napi::Function::New<acceptWaitingCall>(env));
  exports.Set("duplicate", Napi::Function::New<duplicateCall>(env));
  exports.Set("hasHungUp", Napi::Function::New<hasHungUpCall>(env));
  exports.Set("sendDatagram", Napi::Function::New<sendDatagramCall>(env));
}

}  // namespace ebbtide::sys
