// A stand-in for NVIDIA's driver, for tests on machines without a GPU. Device memory is host memory.
//
// Streams are queues that run late: a call only puts work down, and some of what may run runs at
// times, picked at random by seed over all streams of all devices; now and then one stream stands
// still for a while. Rules, those of the driver: work of one stream runs in order; a wait holds its
// stream until the place that was last marked when it was asked for is passed; host memory is read
// and written when a copy's turn comes; work that fails makes its context unusable.
//
// Kernels are not run: whoever launches them follows with work of the host (cuLaunchHostFunc).
// Memory is given full of 0xff, which is not a number in any float. Errors are planted by settings:
// "devices=2,memory=1048576,seed=7,fail=cuMemAlloc_v2:3:2,fail=work:40:719", the third call of that
// name returns 2, the fortieth piece of work fails with 719; "hang=50": the stream of the fiftieth
// piece of work stands still for ever; "deaf=1": streams wait for nothing. With "once=PATH" errors
// and hangs are planted by the process that makes the file PATH, and by none after it.
// OCTET_STAND_IN holds the settings of a start.
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <vector>

namespace {

enum Status : unsigned {
    SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NOT_INITIALIZED = 3, INVALID_DEVICE = 101,
    INVALID_CONTEXT = 201, INVALID_HANDLE = 400, NOT_READY = 600, ILLEGAL_ADDRESS = 700,
    ALREADY_REGISTERED = 712, NOT_REGISTERED = 713, LAUNCH_FAILED = 719,
};

using Address = uint64_t;
using Clock = std::chrono::steady_clock;
using Lock = std::unique_lock<std::mutex>;

struct Device {
    size_t used = 0;
    Status sticky = SUCCESS;
    std::map<Address, size_t> memory;
};

struct Event {
    bool timed;
    uint64_t marked = 0, passed = 0;
    Clock::time_point time;
};

struct Item {
    std::function<Status()> work;  // none: a mark or a wait
    Event* event = nullptr;
    uint64_t number = 0;
    bool waits = false;
};

struct Stream {
    Device* device;
    std::deque<Item> queue;
    bool hangs = false;
};

struct Module { std::string start; };
struct Function { Module* module; std::string name; };
struct Fault { std::string call; uint64_t number; Status status; };

struct World {
    std::mutex mutex;
    std::condition_variable changed;
    std::vector<Device> devices;
    std::vector<Stream*> streams;
    std::map<Address, size_t> pinned;
    std::vector<Fault> faults;
    std::map<std::string, uint64_t> calls;
    size_t memory = size_t(8) << 30;
    uint64_t random = 0, hang = 0;
    Stream* slow = nullptr;
    bool ready = false, deaf = false;

    // SplitMix64, from 0 to end - 1.
    uint64_t below(uint64_t end) {
        random += 0x9e3779b97f4a7c15;
        uint64_t z = (random ^ random >> 30) * 0xbf58476d1ce4e5b9;
        z = (z ^ z >> 27) * 0x94d049bb133111eb;
        return (z ^ z >> 31) % end;
    }

    void set(const std::string& settings) {
        size_t count = devices.empty() ? 1 : devices.size();
        for (size_t at = 0; at < settings.size();) {
            size_t end = std::min(settings.find(',', at), settings.size());
            std::string one = settings.substr(at, end - at);
            size_t equals = one.find('=');
            std::string key = one.substr(0, equals), value = one.substr(equals + 1);
            if (key == "devices") count = std::stoul(value);
            if (key == "memory") memory = std::stoul(value);
            if (key == "seed") random = std::stoull(value);
            if (key == "deaf") deaf = value != "0";
            if (key == "hang") hang = std::stoull(value);
            if (key == "once") {
                FILE* first = fopen(value.c_str(), "wx");
                if (first) fclose(first);
                else faults.clear(), hang = 0;
            }
            if (key == "fail") {
                size_t first = value.find(':'), second = value.find(':', first + 1);
                uint64_t number = std::stoull(value.substr(first + 1, second - first - 1));
                Status status = Status(std::stoul(value.substr(second + 1)));
                faults.push_back({value.substr(0, first), number, status});
            }
            at = end + 1;
        }
        if (devices.empty()) devices.resize(count);
    }

    // What is planted for this call, and that it was made.
    Status fault(const std::string& call) {
        uint64_t number = ++calls[call];
        for (auto& fault : faults)
            if (fault.call == call && fault.number == number) return fault.status;
        return SUCCESS;
    }

    bool may_run(const Stream& stream) const {
        if (stream.queue.empty() || stream.hangs) return false;
        auto& item = stream.queue.front();
        return deaf || !item.waits || item.event->passed >= item.number;
    }

    // Runs the next item of a random stream that may go on. Returns whether any may.
    bool run_one() {
        std::vector<Stream*> able;
        for (auto* stream : streams)
            if (may_run(*stream)) able.push_back(stream);
        if (able.empty()) return false;
        if (below(32) == 0) slow = below(4) ? streams[below(streams.size())] : nullptr;
        if (able.size() > 1)
            for (size_t i = 0; i < able.size(); i++)
                if (able[i] == slow) { able.erase(able.begin() + i); break; }
        Stream* stream = able[below(able.size())];
        Item item = std::move(stream->queue.front());
        stream->queue.pop_front();
        if (item.work && !stream->device->sticky) {
            Status status = fault("work");
            if (!status) status = item.work();
            if (status) stream->device->sticky = status;
            stream->hangs = hang && calls["work"] == hang;
        } else if (item.event && !item.waits) {
            item.event->passed = std::max(item.event->passed, item.number);
            item.event->time = Clock::now();
        }
        changed.notify_all();
        return true;
    }

    // Lets a random time pass, mostly none.
    void run_some() { while (below(3) == 0 && run_one()) {} }

    template <class F> void wait(Lock& lock, F done) {
        while (!done())
            if (!run_one()) changed.wait_for(lock, std::chrono::milliseconds(20));
    }

    bool is_empty(const Device* device) const {
        for (auto* stream : streams)
            if (stream->device == device && !stream->queue.empty()) return false;
        return true;
    }

    bool has_failed() const {
        for (auto* stream : streams)
            if (stream->device->sticky) return true;
        return false;
    }

    // Whether a range lies in memory that some device has given.
    bool is_given(Address at, size_t bytes) const {
        for (auto& device : devices) {
            auto next = device.memory.upper_bound(at);
            if (next == device.memory.begin()) continue;
            auto& [start, size] = *std::prev(next);
            if (at + bytes <= start + size) return true;
        }
        return false;
    }
};

World world;
thread_local Device* current = nullptr;
thread_local std::vector<Device*> pushed;

// What every call begins with: the lock, what was planted, and whether the context is still usable.
#define BEGIN(NAME)                                                                                \
    Lock lock(world.mutex);                                                                        \
    if (Status planted = world.fault(NAME)) return planted;                                        \
    if (!world.ready) return NOT_INITIALIZED;

#define BEGIN_IN_CONTEXT(NAME)                                                                     \
    BEGIN(NAME)                                                                                    \
    if (!current) return INVALID_CONTEXT;                                                          \
    if (current->sticky) return current->sticky;

Status enqueue(Stream* stream, Item item) {
    if (!stream) return INVALID_HANDLE;
    stream->queue.push_back(std::move(item));
    world.changed.notify_all();
    world.run_some();
    return stream->device->sticky;
}

Status enqueue(Stream* stream, std::function<Status()> work) {
    Item item;
    item.work = std::move(work);
    return enqueue(stream, std::move(item));
}

}  // namespace

#define API extern "C" __attribute__((visibility("default"))) Status

// Settings for what comes; what no driver has. Returns how often a call was made.
extern "C" __attribute__((visibility("default"))) uint64_t octetStandIn(const char* settings,
                                                                        const char* call) {
    Lock lock(world.mutex);
    if (settings) world.set(settings);
    return call ? world.calls[call] : 0;
}

API cuInit(unsigned) {
    Lock lock(world.mutex);
    if (Status planted = world.fault("cuInit")) return planted;
    const char* settings = getenv("OCTET_STAND_IN");
    if (!world.ready) world.set(settings ? settings : "");
    world.ready = true;
    return SUCCESS;
}
API cuDriverGetVersion(int* version) { *version = 13000; return SUCCESS; }
API cuGetErrorName(Status status, const char** text) {
    static const std::map<Status, const char*> names = {
        {INVALID_VALUE, "CUDA_ERROR_INVALID_VALUE"}, {OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY"},
        {INVALID_CONTEXT, "CUDA_ERROR_INVALID_CONTEXT"},
        {ILLEGAL_ADDRESS, "CUDA_ERROR_ILLEGAL_ADDRESS"},
        {LAUNCH_FAILED, "CUDA_ERROR_LAUNCH_FAILED"},
        {Status(46), "CUDA_ERROR_DEVICE_UNAVAILABLE"}, {Status(214), "CUDA_ERROR_ECC_UNCORRECTABLE"}};
    auto name = names.find(status);
    *text = name == names.end() ? nullptr : name->second;
    return *text ? SUCCESS : INVALID_VALUE;
}
API cuGetErrorString(Status, const char** text) { *text = nullptr; return INVALID_VALUE; }

API cuDeviceGetCount(int* count) {
    BEGIN("cuDeviceGetCount")
    *count = int(world.devices.size());
    return SUCCESS;
}
API cuDeviceGet(int* device, int ordinal) {
    BEGIN("cuDeviceGet")
    if (ordinal < 0 || size_t(ordinal) >= world.devices.size()) return INVALID_DEVICE;
    *device = ordinal;
    return SUCCESS;
}
API cuDeviceGetName(char* name, int size, int) {
    snprintf(name, size, "stand-in");
    return SUCCESS;
}
API cuDeviceTotalMem_v2(size_t* bytes, int) { *bytes = world.memory; return SUCCESS; }
API cuDeviceGetAttribute(int* value, int which, int) {
    static const std::map<int, int> values = {{75, 9}, {76, 0}, {16, 132}, {97, 227 << 10}};
    auto found = values.find(which);
    *value = found == values.end() ? 0 : found->second;
    return SUCCESS;
}

API cuDevicePrimaryCtxRetain(void** context, int device) {
    BEGIN("cuDevicePrimaryCtxRetain")
    *context = &world.devices[device];
    return SUCCESS;
}
API cuDevicePrimaryCtxRelease_v2(int) { return SUCCESS; }
API cuCtxSetCurrent(void* context) { current = static_cast<Device*>(context); return SUCCESS; }
API cuCtxPushCurrent_v2(void* context) {
    pushed.push_back(current);
    current = static_cast<Device*>(context);
    return SUCCESS;
}
API cuCtxPopCurrent_v2(void** context) {
    if (pushed.empty()) return INVALID_CONTEXT;
    *context = current;
    current = pushed.back();
    pushed.pop_back();
    return SUCCESS;
}
API cuCtxSynchronize() {
    BEGIN_IN_CONTEXT("cuCtxSynchronize")
    Device* device = current;
    world.wait(lock, [=] { return device->sticky || world.is_empty(device); });
    return device->sticky;
}

API cuMemGetInfo_v2(size_t* free, size_t* all) {
    Lock lock(world.mutex);
    if (!current) return INVALID_CONTEXT;
    *free = world.memory - current->used;
    *all = world.memory;
    return SUCCESS;
}
API cuMemAlloc_v2(Address* address, size_t bytes) {
    BEGIN_IN_CONTEXT("cuMemAlloc_v2")
    if (bytes == 0) return INVALID_VALUE;
    if (bytes > world.memory - current->used) return OUT_OF_MEMORY;
    void* memory = aligned_alloc(512, (bytes + 511) / 512 * 512);
    if (!memory) return OUT_OF_MEMORY;
    memset(memory, 0xff, bytes);
    *address = Address(memory);
    current->used += bytes;
    current->memory[*address] = bytes;
    return SUCCESS;
}
API cuMemFree_v2(Address address) {
    Lock lock(world.mutex);
    if (!current) return INVALID_CONTEXT;
    auto found = current->memory.find(address);
    if (found == current->memory.end()) return INVALID_VALUE;
    Device* device = current;
    world.wait(lock, [=] { return device->sticky || world.is_empty(device); });
    current->used -= found->second;
    current->memory.erase(found);
    // Peers of a device that has failed may still copy from it: there is no fault of memory then.
    if (!world.has_failed()) free(reinterpret_cast<void*>(address));
    return SUCCESS;
}
API cuMemHostAlloc(void** address, size_t bytes, unsigned) {
    BEGIN_IN_CONTEXT("cuMemHostAlloc")
    *address = aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);
    if (!*address) return OUT_OF_MEMORY;
    memset(*address, 0xff, bytes);
    world.pinned[Address(*address)] = bytes;
    return SUCCESS;
}
API cuMemFreeHost(void* address) {
    Lock lock(world.mutex);
    if (!world.pinned.erase(Address(address))) return INVALID_VALUE;
    free(address);
    return SUCCESS;
}
API cuMemHostRegister_v2(void* address, size_t bytes, unsigned) {
    BEGIN_IN_CONTEXT("cuMemHostRegister_v2")
    if (!bytes || Address(address) % 4096) return INVALID_VALUE;
    return world.pinned.emplace(Address(address), bytes).second ? SUCCESS : ALREADY_REGISTERED;
}
API cuMemHostUnregister(void* address) {
    Lock lock(world.mutex);
    return world.pinned.erase(Address(address)) ? SUCCESS : NOT_REGISTERED;
}

API cuMemcpyHtoDAsync_v2(Address to, const void* from, size_t bytes, Stream* stream) {
    BEGIN_IN_CONTEXT("cuMemcpyHtoDAsync_v2")
    if (!world.is_given(to, bytes)) return INVALID_VALUE;
    return enqueue(stream, [=] {
        memcpy(reinterpret_cast<void*>(to), from, bytes);
        return SUCCESS;
    });
}
API cuMemcpyDtoHAsync_v2(void* to, Address from, size_t bytes, Stream* stream) {
    BEGIN_IN_CONTEXT("cuMemcpyDtoHAsync_v2")
    if (!world.is_given(from, bytes)) return INVALID_VALUE;
    return enqueue(stream, [=] {
        memcpy(to, reinterpret_cast<void*>(from), bytes);
        return SUCCESS;
    });
}
API cuMemcpyDtoDAsync_v2(Address to, Address from, size_t bytes, Stream* stream) {
    BEGIN_IN_CONTEXT("cuMemcpyDtoDAsync_v2")
    if (!world.is_given(from, bytes) || !world.is_given(to, bytes)) return INVALID_VALUE;
    return enqueue(stream, [=] {
        memmove(reinterpret_cast<void*>(to), reinterpret_cast<void*>(from), bytes);
        return SUCCESS;
    });
}
API cuMemcpyPeerAsync(Address to, void* to_context, Address from, void* from_context, size_t bytes,
                      Stream* stream) {
    BEGIN_IN_CONTEXT("cuMemcpyPeerAsync")
    auto *target = static_cast<Device*>(to_context), *source = static_cast<Device*>(from_context);
    if (!target || !source) return INVALID_CONTEXT;
    if (!world.is_given(from, bytes) || !world.is_given(to, bytes)) return INVALID_VALUE;
    return enqueue(stream, [=] {
        memmove(reinterpret_cast<void*>(to), reinterpret_cast<void*>(from), bytes);
        return SUCCESS;
    });
}
API cuCtxEnablePeerAccess(void*, unsigned) { return SUCCESS; }
API cuMemsetD8Async(Address to, unsigned char value, size_t bytes, Stream* stream) {
    BEGIN_IN_CONTEXT("cuMemsetD8Async")
    if (!world.is_given(to, bytes)) return INVALID_VALUE;
    return enqueue(stream, [=] {
        memset(reinterpret_cast<void*>(to), value, bytes);
        return SUCCESS;
    });
}
API cuStreamWriteValue64_v2(Stream* stream, Address to, uint64_t value, unsigned) {
    BEGIN_IN_CONTEXT("cuStreamWriteValue64_v2")
    if (to % 8 || !world.is_given(to, 8)) return INVALID_VALUE;
    return enqueue(stream, [=] {
        *reinterpret_cast<uint64_t*>(to) = value;
        return SUCCESS;
    });
}

API cuStreamCreateWithPriority(Stream** stream, unsigned, int) {
    BEGIN_IN_CONTEXT("cuStreamCreateWithPriority")
    *stream = new Stream{current, {}, false};
    world.streams.push_back(*stream);
    return SUCCESS;
}
API cuStreamDestroy_v2(Stream* stream) {
    Lock lock(world.mutex);
    world.wait(lock, [=] { return stream->device->sticky || stream->queue.empty(); });
    // Whoever waits for a stream that broke goes on.
    for (auto& item : stream->queue)
        if (item.event && !item.waits) item.event->passed = std::max(item.event->passed, item.number);
    for (size_t i = 0; i < world.streams.size(); i++)
        if (world.streams[i] == stream) { world.streams.erase(world.streams.begin() + i); break; }
    if (world.slow == stream) world.slow = nullptr;
    delete stream;
    return SUCCESS;
}
API cuStreamWaitEvent(Stream* stream, Event* event, unsigned) {
    BEGIN_IN_CONTEXT("cuStreamWaitEvent")
    Item item;
    item.event = event, item.number = event->marked, item.waits = true;
    return enqueue(stream, std::move(item));
}

API cuEventCreate(Event** event, unsigned flags) {
    BEGIN_IN_CONTEXT("cuEventCreate")
    *event = new Event{!(flags & 2), 0, 0, {}};
    return SUCCESS;
}
// Never freed: a stream may still have it in its queue.
API cuEventDestroy_v2(Event*) { return SUCCESS; }
API cuEventRecord(Event* event, Stream* stream) {
    BEGIN_IN_CONTEXT("cuEventRecord")
    Item item;
    item.event = event, item.number = ++event->marked;
    return enqueue(stream, std::move(item));
}
API cuEventQuery(Event* event) {
    BEGIN_IN_CONTEXT("cuEventQuery")
    world.run_some();
    if (current->sticky) return current->sticky;
    return event->passed >= event->marked ? SUCCESS : NOT_READY;
}
API cuEventSynchronize(Event* event) {
    BEGIN_IN_CONTEXT("cuEventSynchronize")
    Device* device = current;
    world.wait(lock, [=] { return device->sticky || event->passed >= event->marked; });
    return device->sticky;
}
API cuEventElapsedTime(float* milliseconds, Event* from, Event* to) {
    BEGIN_IN_CONTEXT("cuEventElapsedTime")
    for (auto* event : {from, to}) {
        if (!event->timed || !event->marked) return INVALID_HANDLE;
        if (event->passed < event->marked) return NOT_READY;
    }
    *milliseconds = std::chrono::duration<float, std::milli>(to->time - from->time).count();
    return SUCCESS;
}

API cuModuleLoadData(Module** module, const void* image) {
    BEGIN_IN_CONTEXT("cuModuleLoadData")
    *module = new Module{std::string(static_cast<const char*>(image), 4)};
    return SUCCESS;
}
API cuModuleGetFunction(Function** function, Module* module, const char* name) {
    BEGIN_IN_CONTEXT("cuModuleGetFunction")
    *function = new Function{module, name};
    return SUCCESS;
}
API cuFuncSetAttribute(Function*, int, int) { return SUCCESS; }
API cuLaunchKernel(Function* function, unsigned x, unsigned y, unsigned z, unsigned a, unsigned b,
                   unsigned c, unsigned shared, Stream* stream, void** parameters, void**) {
    BEGIN_IN_CONTEXT("cuLaunchKernel")
    uint64_t threads = uint64_t(a) * b * c, blocks = uint64_t(x) * y * z;
    if (!function || !parameters || !blocks || !threads || threads > 1024) return INVALID_VALUE;
    if (y > 65535 || z > 65535 || shared > 227u << 10) return INVALID_VALUE;
    return enqueue(stream, [] { return SUCCESS; });
}
API cuLaunchHostFunc(Stream* stream, void (*function)(void*), void* data) {
    BEGIN_IN_CONTEXT("cuLaunchHostFunc")
    return enqueue(stream, [=] {
        function(data);
        return SUCCESS;
    });
}
