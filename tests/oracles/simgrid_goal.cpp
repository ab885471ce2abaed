// Replays a GOAL schedule in SimGrid (s4u): an oracle that shares no code with coordsim.
//
//   simgrid_goal FILE latency overhead rate local_latency local_rate ranks_per_node
//
// Times are ns, rates bytes per second. One node is one SimGrid host, one rank one actor on it. Clock: one SimGrid
// second stands for one nanosecond, so that whole nanoseconds are whole doubles. Prints each rank's finish time, one
// a line, in rank order.
//
// A rank's CPU is serial. A send takes max(o, bytes / rate) of it and its message sets out after o; a recv takes o
// once its message is there; among recvs that may run, the one whose message came first is next.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <fstream>
#include <iostream>
#include <map>
#include <set>
#include <sstream>
#include <string>
#include <tuple>
#include <unordered_map>
#include <vector>

#include <simgrid/s4u.hpp>

namespace sg = simgrid::s4u;

enum class Kind { send, recv, calc };

struct Op {
  Kind kind;
  double size;  // bytes, or ns of a calc
  int peer;
  std::string box;  // the mailbox of this one message
  int missing = 0;
  std::vector<int> then;
};

struct Network {
  double latency, overhead, rate, local_latency, local_rate;
  int per_node;
};

static std::vector<std::vector<Op>> ranks;
static std::vector<double> finish;
static Network net;
static int token;

[[noreturn]] static void fail(const std::string& why)
{
  std::cerr << "simgrid_goal: " << why << "\n";
  std::exit(2);
}

static void read_goal(const std::string& path)
{
  std::ifstream file(path);
  if (!file)
    fail("cannot read " + path);
  std::unordered_map<std::string, int> labels;
  std::map<std::tuple<int, int, int>, int> sent, received;  // (source, target, tag) -> messages so far
  std::string line;
  int rank = -1;
  while (std::getline(file, line)) {
    std::istringstream words(line);
    std::string first, second;
    if (!(words >> first) || first.rfind("//", 0) == 0)
      continue;
    if (first == "num_ranks") {
      size_t count;
      words >> count;
      ranks.resize(count);
    } else if (first == "rank") {
      words >> rank;
      labels.clear();
    } else if (first == "}") {
      rank = -1;
    } else if (first.back() == ':') {
      std::string kind, size, way, word;
      int peer = -1, tag = 0;
      words >> kind >> size;
      Op op{kind == "send" ? Kind::send : kind == "recv" ? Kind::recv : Kind::calc, std::atof(size.c_str()), -1, ""};
      if (op.kind != Kind::calc) {
        words >> way >> peer >> word >> tag;
        int source = op.kind == Kind::send ? rank : peer, target = op.kind == Kind::send ? peer : rank;
        int number = (op.kind == Kind::send ? sent : received)[{source, target, tag}]++;
        op.peer = peer;
        op.box = std::to_string(source) + ">" + std::to_string(target) + ":" + std::to_string(tag) + "#" +
                 std::to_string(number);
      }
      first.pop_back();
      labels[first] = static_cast<int>(ranks.at(rank).size());
      ranks[rank].push_back(op);
    } else {
      words >> second;
      if (second != "requires")
        fail("cannot read this line: " + line);
      words >> second;
      int op = labels.at(first), before = labels.at(second);
      ranks.at(rank)[op].missing++;
      ranks[rank][before].then.push_back(op);
    }
  }
  if (sent != received)
    fail("sends and recvs do not match");
}

static void run_rank(int me)
{
  std::vector<Op>& ops = ranks[me];
  std::vector<sg::CommPtr> inbound(ops.size());
  std::vector<int*> slots(ops.size());
  std::set<int> local;  // sends and calcs that may run, in the schedule's order
  std::vector<int> waiting;  // recvs that may run
  std::deque<int> come;      // of those given to helpers: the ones whose message is there, first come first
  auto arrived = sg::Semaphore::create(0);
  size_t helped = 0;
  auto release = [&](int op) {
    if (ops[op].kind == Kind::recv)
      waiting.push_back(op);
    else
      local.insert(op);
  };
  for (size_t op = 0; op < ops.size(); op++)
    if (ops[op].kind == Kind::recv)  // posted before anything runs, so a message sets out when it is sent
      inbound[op] = sg::Mailbox::by_name(ops[op].box)->get_async<int>(&slots[op]);
  for (size_t op = 0; op < ops.size(); op++)
    if (ops[op].missing == 0)
      release(static_cast<int>(op));
  for (size_t done = 0; done < ops.size(); done++) {
    int op;
    if (!local.empty()) {
      op = *local.begin();
      local.erase(local.begin());
      if (ops[op].kind == Kind::calc) {
        sg::this_actor::sleep_for(ops[op].size);
      } else {
        bool near = ops[op].peer / net.per_node == me / net.per_node;
        double wire = ops[op].size / (near ? net.local_rate : net.rate);
        sg::this_actor::sleep_for(net.overhead);
        sg::Mailbox::by_name(ops[op].box)->put_init(&token, static_cast<uint64_t>(ops[op].size))->detach();
        sg::this_actor::sleep_for(std::max(0.0, wire - net.overhead));
      }
    } else {
      if (waiting.size() == 1 && helped == 0) {
        op = waiting[0];
        inbound[op]->wait();
      } else {  // one helper for each message: Comm::wait_any over thousands takes minutes
        for (int each : waiting)
          sg::Actor::create("helper", sg::this_actor::get_host(), [each, &inbound, &come, arrived] {
            inbound[each]->wait();
            come.push_back(each);
            arrived->release();
          });
        helped += waiting.size();
        if (helped == 0)
          fail("rank " + std::to_string(me) + " has operations that nothing releases");
        arrived->acquire();
        op = come.front();
        come.pop_front();
        helped--;
      }
      waiting.clear();
      sg::this_actor::sleep_for(net.overhead);
    }
    for (int next : ops[op].then)
      if (--ops[next].missing == 0)
        release(next);
  }
  finish[me] = sg::Engine::get_clock();
}

int main(int argc, char** argv)
{
  if (argc != 8)
    fail("needs FILE latency overhead rate local_latency local_rate ranks_per_node");
  const double ns = 1e9;
  net = {std::atof(argv[2]), std::atof(argv[3]), std::atof(argv[4]) / ns, std::atof(argv[5]),
         std::atof(argv[6]) / ns, std::atoi(argv[7])};
  read_goal(argv[1]);

  sg::Engine engine(&argc, argv);
  // LogGP has latency and bandwidth and nothing else: no TCP window, no cross-traffic, no correction factors.
  for (const char* setting : {"network/model:CM02", "network/TCP-gamma:0", "network/crosstraffic:0",
                              "network/latency-factor:1", "network/bandwidth-factor:1", "network/weight-S:0",
                              "contexts/stack-size:128"})
    sg::Engine::set_config(setting);

  auto* zone = sg::create_star_zone("nodes");
  std::vector<sg::Host*> hosts;
  for (size_t first = 0; first < ranks.size(); first += net.per_node) {
    std::string name = "node" + std::to_string(hosts.size());
    auto* host = zone->create_host(name, 1.0);
    auto link = [&](const std::string& kind, double rate, double latency) {  // messages do not slow one another
      auto* made = zone->create_link(kind + name, rate)->set_latency(latency);
      return sg::LinkInRoute(made->set_sharing_policy(sg::Link::SharingPolicy::FATPIPE)->seal());
    };
    // One link a sender, none at the receiver: one for all would be the same model, and N^2 work for its solver.
    zone->add_route(host->get_netpoint(), nullptr, nullptr, nullptr, {link("out of ", net.rate, net.latency)}, false);
    zone->add_route(nullptr, host->get_netpoint(), nullptr, nullptr, std::vector<sg::LinkInRoute>{}, false);
    zone->add_route(host->get_netpoint(), host->get_netpoint(), nullptr, nullptr,
                    {link("inside ", net.local_rate, net.local_latency)});
    hosts.push_back(host);
  }
  zone->seal();

  finish.assign(ranks.size(), -1);
  for (size_t rank = 0; rank < ranks.size(); rank++)
    sg::Actor::create("rank" + std::to_string(rank), hosts[rank / net.per_node], run_rank, static_cast<int>(rank));
  engine.run();
  for (double at : finish)
    std::printf("%.6f\n", at);
  return 0;
}
