// Breaks what the debug build asserts, one by one: `assertions lock`, `assertions count`. Each ends by SIGABRT; without an
// argument nothing is broken.
#include <cstring>

#include "graph/graph.h"
#include "base/lock.h"

using namespace ebbtide;

int main(int count, char** words) {
  const char* broken = count > 1 ? words[1] : "";
  const uint32_t ops[] = {kOpSet, 0, kPresent, 0, 0, kOpSet, 1, kPresent, 0, 0, kOpAdd, 0, 1, 0};
  Graph graph;
  Mutex mutex;
  graph.guardedBy(mutex);
  if (std::strcmp(broken, "lock") == 0) graph.apply(ops);
  const Locked lock(mutex);
  graph.apply(ops);
  // An edge that is counted and is not there, as a loader may leave it.
  if (std::strcmp(broken, "count") == 0) graph.loadEdges(1, 1)[0] = edgeWord(0, 0);
  const uint32_t again[] = {kOpSet, 2, kPresent, 0, 0};
  graph.apply(again);
  return 0;
}
