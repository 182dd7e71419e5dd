# featured: see `make help`.
SHELL := /bin/bash
.DELETE_ON_ERROR:
.SUFFIXES:

# From feature.h, the one place that says it.
VERSION := $(shell awk '/define FEATURE_VERSION_(MAJOR|MINOR|PATCH) / {printf "%s%s", dot, $$3; dot = "."}' libclient/feature.h)
SOVERSION := 0
PREFIX ?= /usr/local
BUILD ?= build
ifeq ($(origin CC),default)
CC := gcc
endif
# V=1 shows the commands.
Q := $(if $(V),,@)
# The Python that the binding is built and tested with; what is built serves every later one, too.
PYTHON ?= /usr/bin/python3
# The last one of INC: cppcheck is not shown Python's headers (scripts/lint).
PYTHON_INC = -idirafter $(shell $(PYTHON) -c 'import sysconfig; print(sysconfig.get_path("include"))')
CLANG ?= clang
OPT ?= -O2 -g
SANITIZE ?=
WERROR ?= -Werror

# Installs what the goals need, and no more, once, when a package is missing (scripts/setup).
GOALS := $(or $(MAKECMDGOALS),all)
NEEDS_ALL := check-all vm-check vm-shell bench-rdma lint fuzz fuzzers valgrind check-wheel
NEEDS_TEST := $(BUILD)/tests/% tests check check-gpu check-faults check-python python python-docs wheel wheel-mooncake asan ubsan \
  bench-python bench-peers bench-index bench
ifeq ($(filter-out clean help format,$(GOALS)),)
else ifneq ($(filter $(NEEDS_ALL),$(GOALS)),)
NEEDS := all
else
NEEDS := $(if $(filter $(NEEDS_TEST),$(GOALS)),test,build) $(if $(filter man install,$(GOALS)),docs) $(filter deb,$(GOALS))
endif
ifdef NEEDS
SETUP := $(shell scripts/setup --quiet $(NEEDS) >&2 || echo failed)
ifneq ($(SETUP),)
$(error scripts/setup failed: see above)
endif
endif

WARN := -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wstrict-prototypes -Wmissing-prototypes \
  -Wno-sign-conversion -Wno-missing-field-initializers $(if $(findstring clang,$(CC)),,-Wno-format-truncation -Wno-restrict) $(WERROR)
# An include is written with its folder: "store/store.h", "support/world.h", "proto/frame.h".
INC := -I. -Idaemon -Ilibclient -Itests -isystem $(BUILD)/gen
CPPFLAGS += -D_GNU_SOURCE -DFEATURED_VERSION='"$(VERSION)"' $(INC)
CFLAGS += -std=gnu17 $(OPT) -fPIC -fvisibility=hidden $(WARN) $(SANITIZE) -MD -MP -pthread
LDFLAGS += $(SANITIZE) -pthread
PC := $(shell command -v pkg-config)
LIB_CLIENT := $(shell $(PC) --libs libprotobuf-c libsodium)
LIB_DAEMON := $(shell $(PC) --libs libuv inih libcurl libcrypto jansson libmicrohttpd) $(LIB_CLIENT)
# Only programs of tests/vm: the broker finds these two at run time (daemon/transport/rdma/verbs.h).
LIB_VERBS := $(shell $(PC) --libs libibverbs librdmacm)
LIB_CTL := $(shell $(PC) --libs jansson) $(LIB_CLIENT)
# featurectl top alone.
LIB_TOP := $(shell $(PC) --libs ncursesw)
LIB_TEST := -lcriterion -lm

# ---- what is built from what ----
PROTOS := $(wildcard proto/*.proto)
GEN_C := $(PROTOS:proto/%.proto=$(BUILD)/gen/%.pb-c.c)
GEN_H := $(GEN_C:.c=.h)
obj = $(patsubst %.c,$(BUILD)/obj/%.o,$(1))

PROTO_OBJ := $(GEN_C:.c=.o) $(call obj,$(wildcard proto/*.c))
STORE_OBJ := $(call obj,$(wildcard daemon/store/*.c))
DAEMON_OBJ := $(call obj,$(filter-out daemon/main.c daemon/store/%,$(wildcard daemon/*.c daemon/*/*.c daemon/*/*/*.c)))
HOST_OBJ := $(call obj,$(wildcard daemon/host/*.c))
CLIENT_OBJ := $(call obj,$(wildcard libclient/*.c))
CTL_OBJ := $(call obj,$(wildcard libclient/featurectl/*.c))
BENCH_OBJ := $(call obj,$(wildcard tests/bench/*.c))
SUPPORT_OBJ := $(call obj,$(wildcard tests/support/*.c))
suite_obj = $(call obj,$(wildcard tests/$(1)/*.c))
FAKE_CUDA := $(BUILD)/tests/fake/libcuda.so.1
SUITES := $(foreach s,unit conformance model e2e cuda,$(if $(wildcard tests/$(s)/*.c),$(s)))
FUZZERS := $(patsubst tests/fuzz/%.c,$(BUILD)/fuzz/%,$(wildcard tests/fuzz/fuzz_*.c))

PROGRAMS := $(BUILD)/featured $(BUILD)/featurectl $(BUILD)/feature-bench
LIBRARIES := $(BUILD)/libfeature.so $(BUILD)/libfeature.a

.PHONY: all install demo check check-all check-gpu check-faults vm-check vm-shell bench-rdma bench bench-index bench-peers bench-python lint format asan ubsan valgrind fuzz clean help tests man
all: $(PROGRAMS) $(LIBRARIES) ## build everything into build/

help: ## this list
	@grep -hE '^[a-z_-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

# In a .proto, enum values carry the name of their enum, as all of a package share one space of names
# (STATUS_FULL). In C the enum's name stands in front anyway: sed makes FB__STATUS__FULL of
# FB__STATUS__STATUS_FULL.
$(BUILD)/gen/%.pb-c.c $(BUILD)/gen/%.pb-c.h &: proto/%.proto
	@mkdir -p $(@D)
	$(Q)protoc-c -Iproto --c_out=$(BUILD)/gen $<
	$(Q)sed -i -E 's/FB__([A-Z_]+)__\1_/FB__\1__/g' $(BUILD)/gen/$*.pb-c.[ch]
$(BUILD)/gen/%.o: $(BUILD)/gen/%.c | $(GEN_H)
	$(Q)$(CC) $(CPPFLAGS) -std=gnu17 $(OPT) -fPIC -fvisibility=hidden $(SANITIZE) -w -c $< -o $@
$(BUILD)/obj/%.o: %.c | $(GEN_H)
	@mkdir -p $(@D)
	@echo "  CC   $<"
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) $(EXTRA_CFLAGS) -c $< -o $@

$(BUILD)/libfeature.a: $(CLIENT_OBJ) $(PROTO_OBJ)
	$(Q)rm -f $@ && ar qcs $@ $^
$(BUILD)/libfeature.so.$(SOVERSION): $(CLIENT_OBJ) $(PROTO_OBJ) libclient/libfeature.map
	@echo "  LINK $@"
	$(Q)$(CC) -shared -Wl,-soname,libfeature.so.$(SOVERSION) -Wl,--version-script=libclient/libfeature.map \
	  -Wl,--no-undefined $(LDFLAGS) $(CLIENT_OBJ) $(PROTO_OBJ) $(LIB_CLIENT) -o $@
$(BUILD)/libfeature.so: $(BUILD)/libfeature.so.$(SOVERSION)
	ln -sf $(<F) $@
$(BUILD)/libdaemon.a: $(STORE_OBJ) $(DAEMON_OBJ) $(PROTO_OBJ)
	$(Q)rm -f $@ && ar qcs $@ $^
$(BUILD)/featured: $(call obj,daemon/main.c) $(BUILD)/libdaemon.a
	@echo "  LINK $@"
	$(Q)$(CC) $(LDFLAGS) $^ $(LIB_DAEMON) -o $@
$(BUILD)/featurectl: $(CTL_OBJ) $(HOST_OBJ) $(BUILD)/libfeature.a
	@echo "  LINK $@"
	$(Q)$(CC) $(LDFLAGS) $^ $(LIB_CTL) $(LIB_TOP) -o $@
$(BUILD)/feature-bench: $(BENCH_OBJ) $(SUPPORT_OBJ) $(BUILD)/libfeature.a $(BUILD)/libdaemon.a
	@echo "  LINK $@"
	$(Q)$(CC) $(LDFLAGS) $^ $(LIB_DAEMON) $(LIB_CTL) -o $@

# ---- Python ----
# With PYTHONPATH=build/python, `import feature_broker` finds the sources of this tree and the module that is built here.
PYTHON_SOURCES = $(shell find libclient/python/feature_broker -not -path '*/__pycache__*')
.PHONY: python python-docs check-python
python: $(BUILD)/python/built ## the Python package, for PYTHONPATH=build/python
$(BUILD)/python/built: $(BUILD)/libfeature.so libclient/python/build_extension.py $(wildcard libclient/python/*.[ch]) \
  libclient/feature.h $(PYTHON_SOURCES)
	@echo "  PYTHON $(@D)"
	$(Q)CC='$(CC)' CFLAGS='$(SANITIZE)' FEATURE_BUILD=$(BUILD) FEATURE_RPATH='$$ORIGIN/../..' \
	  $(PYTHON) libclient/python/build_extension.py $(@D)
	@touch $@
# The mooncake drop-in is plain Python and a distribution of its own: nobody gets it who has not asked for it. It is
# built from a copy, for setuptools leaves folders behind.
.PHONY: wheel-mooncake
wheel-mooncake: ## the wheel of the mooncake drop-in, into dist/
	$(Q)rm -rf $(BUILD)/wheel-mooncake && mkdir -p $(BUILD) dist
	$(Q)cp -r libclient/python/mooncake_dropin $(BUILD)/wheel-mooncake
	$(Q)find $(BUILD)/wheel-mooncake -name __pycache__ -prune -exec rm -r {} +
	$(Q)FEATURE_VERSION=$(VERSION) $(PYTHON) -m pip -q wheel --no-deps --no-build-isolation -w dist $(BUILD)/wheel-mooncake
	@ls dist/feature_broker_mooncake-*.whl
python-docs: python ## the reference of the Python package, made of its docstrings: build/python-reference.md
	PYTHONPATH=$(BUILD)/python $(PYTHON) scripts/python-docs > $(BUILD)/python-reference.md
check-python: all python $(FAKE_CUDA) ## the tests of the Python package
	BUILD=$(BUILD) PYTHON=$(PYTHON) scripts/run-tests python

# dist/: one file to install on every node, with the programs and all they need (scripts/build-wheel).
.PHONY: wheel check-wheel
wheel: all ## the wheel for `pip install`, into dist/
	PYTHON=$(PYTHON) CC='$(CC)' scripts/build-wheel $(BUILD) dist
check-wheel: wheel ## the tests of the wheel; needs the network, and root for the other release of Debian
	BUILD=$(BUILD) PYTHON=$(PYTHON) scripts/run-tests wheel

.PHONY: deb
deb: ## Debian packages, into dist/
	scripts/build-deb $(BUILD) dist $(VERSION)

# ---- tests ----
# Simulated brokers have arenas of their own, and are killed with their memory (tests/model/cluster_memory.c).
WRAP_model := -Wl,--wrap=arena_init,--wrap=arena_deinit,--wrap=mmap,--wrap=munmap
define suite_rule
$(BUILD)/tests/$(1): $(call suite_obj,$(1)) $(SUPPORT_OBJ) $(if $(filter unit,$(1)),$(filter-out %/main.o,$(CTL_OBJ))) \
  $(BUILD)/libfeature.a $(BUILD)/libdaemon.a
	@mkdir -p $$(@D)
	@echo "  LINK $$@"
	$(Q)$$(CC) $$(LDFLAGS) $(WRAP_$(1)) $$^ $(LIB_DAEMON) $(LIB_CTL) $(if $(filter unit,$(1)),$(LIB_TOP)) $(LIB_TEST) -o $$@
endef
$(foreach s,$(SUITES),$(eval $(call suite_rule,$(s))))
# The suite `memory` lets allocations of the daemon and of the library fail, those and no others: it is linked with
# copies of both libraries in which malloc and its kin are called counted_malloc and so on (tests/memory/counted.c).
COUNTED := malloc calloc realloc reallocarray free strdup strndup vasprintf asprintf \
  protobuf_c_message_unpack protobuf_c_message_free_unpacked pthread_create
$(BUILD)/%.counted.a: $(BUILD)/%.a
	$(Q)objcopy $(foreach f,$(COUNTED),--redefine-sym $(f)=counted_$(f)) $< $@
$(BUILD)/tests/memory: $(call suite_obj,memory) $(SUPPORT_OBJ) $(BUILD)/libfeature.counted.a $(BUILD)/libdaemon.counted.a
	@mkdir -p $(@D)
	@echo "  LINK $@"
	$(Q)$(CC) $(LDFLAGS) $^ $(LIB_DAEMON) $(LIB_CTL) $(LIB_TEST) -o $@
# A driver for machines without a GPU. The library finds it by its soname, as it would find the real one.
$(FAKE_CUDA): $(call obj,tests/cuda/fake/libcuda.c)
	@mkdir -p $(@D)
	@echo "  LINK $@"
	$(Q)$(CC) -shared -Wl,-soname,libcuda.so.1 $(LDFLAGS) $^ -o $@
$(BUILD)/tests/cuda: | $(FAKE_CUDA)
# The transport suite once more, over RDMA; only a machine with a device can run it (tests/vm/run).
$(BUILD)/tests/vm: $(call suite_obj,vm) $(call obj,tests/conformance/transport_world.c) $(SUPPORT_OBJ) \
  $(BUILD)/libfeature.a $(BUILD)/libdaemon.a
	@mkdir -p $(@D)
	@echo "  LINK $@"
	$(Q)$(CC) $(LDFLAGS) $^ $(LIB_DAEMON) $(LIB_CTL) $(LIB_VERBS) $(LIB_TEST) -o $@
# A stranger on the fabric, and what breaks QPs under a broker: for the cases of tests/vm.
VM_PROGRAMS := $(BUILD)/tests/vm $(BUILD)/tests/stranger $(BUILD)/tests/qp_error.so
$(BUILD)/tests/stranger: $(call obj,tests/vm/programs/stranger.c) $(BUILD)/libdaemon.a
	@mkdir -p $(@D)
	@echo "  LINK $@"
	$(Q)$(CC) $(LDFLAGS) $^ $(LIB_DAEMON) $(LIB_VERBS) -o $@
$(BUILD)/tests/qp_error.so: $(call obj,tests/vm/programs/qp_error.c)
	@mkdir -p $(@D)
	@echo "  LINK $@"
	$(Q)$(CC) -shared $(LDFLAGS) $^ -libverbs -o $@
tests: all $(SUITES:%=$(BUILD)/tests/%) $(BUILD)/tests/memory ## build the test programs

check: tests python ## the tests that need no other machine; closes with "N passed, N failed"
	BUILD=$(BUILD) PYTHON=$(PYTHON) scripts/run-tests $(SUITES) memory python
check-all: tests python $(VM_PROGRAMS) ## those, planted mistakes, and RDMA in QEMU machines; what CI runs
	BUILD=$(BUILD) PYTHON=$(PYTHON) scripts/run-tests $(SUITES) memory python mistakes vm
check-gpu: tests ## the tests of GPU memory alone, on this machine\'s GPU in place of the fake one
	FEATURE_TEST_LIBCUDA=libcuda.so.1 BUILD=$(BUILD) scripts/run-tests cuda
check-faults: tests ## of those the faults alone: leaders killed, quorums lost, nodes cut off, on real etcd
	BUILD=$(BUILD) FILTER='@(index_faults|index_nodes|directory_etcd)/*' scripts/run-tests conformance e2e
vm-check: tests $(VM_PROGRAMS) ## of those the ones that need RDMA alone, in QEMU machines with Soft-RoCE
	BUILD=$(BUILD) tests/vm/run
vm-shell: all ## a prompt on the second of two connected machines with two rails each
	BUILD=$(BUILD) tests/vm/shell
asan: ## the same tests under AddressSanitizer
	$(MAKE) check BUILD=build/asan OPT='-O1 -g' SANITIZE='-fsanitize=address -fno-omit-frame-pointer'
ubsan: ## the same tests under UndefinedBehaviorSanitizer
	$(MAKE) check BUILD=build/ubsan OPT='-O1 -g' SANITIZE='-fsanitize=undefined -fno-sanitize-recover=all'
valgrind: tests ## the unit tests under valgrind
	scripts/run-valgrind $(BUILD)/tests/unit

demo: all ## two brokers on loopback, real feature files, the whole life of a sample
	BUILD=$(BUILD) scripts/demo
bench: all ## every figure into build/bench.jsonl
	scripts/run-bench $(BUILD)
bench-index: all ## what the index in etcd costs, into build/bench-index.jsonl
	OUT=$(BUILD)/bench-index.jsonl scripts/run-bench $(BUILD) index
bench-python: all python ## what Python adds to the C calls, into build/bench-python.jsonl
	PYTHONPATH=$(BUILD)/python $(PYTHON) scripts/bench-python > $(BUILD)/bench-python.jsonl.partial
	mv $(BUILD)/bench-python.jsonl.partial $(BUILD)/bench-python.jsonl

bench-peers: all python ## against Mooncake's own wheel, into build/bench-peers.jsonl; needs the package index
	BUILD=$(BUILD) PYTHON=$(PYTHON) scripts/run-bench-peers

bench-rdma: all ## the figures of RDMA, between two QEMU machines, into build/bench-rdma.jsonl
	scripts/run-bench-rdma $(BUILD)

fuzz: ## 60 s of libFuzzer over each parser
	$(MAKE) fuzzers BUILD=build/fuzzing CC=$(CLANG) WERROR= SANITIZE='-fsanitize=address,undefined,fuzzer-no-link' OPT='-O1 -g'
	scripts/run-fuzz build/fuzzing/fuzz
.PHONY: fuzzers
fuzzers: $(FUZZERS)
# The library meets a broker that a fuzzer plays, and a clock that it moves (tests/fuzz/fuzz_broker.c).
WRAP_fuzz_broker := $(foreach f,fc_socket_connect clock_gettime ppoll pthread_cond_clockwait,-Wl,--wrap=$(f))
$(BUILD)/fuzz/%: $(BUILD)/obj/tests/fuzz/%.o $(BUILD)/libfeature.a $(BUILD)/libdaemon.a
	@mkdir -p $(@D)
	@echo "  LINK $@"
	$(Q)$(CC) $(LDFLAGS) -fsanitize=address,undefined,fuzzer $(WRAP_$*) $^ $(LIB_DAEMON) $(LIB_CTL) -o $@

# ---- style ----
SOURCES = $(wildcard proto/*.[ch] daemon/*.[ch] daemon/*/*.[ch] daemon/*/*/*.[ch] libclient/*.[ch] libclient/*/*.[ch] tests/*/*.[ch] tests/vm/*/*.[ch] tests/cuda/*/*.[ch])
lint: $(GEN_H) ## clang-format, clang-tidy, cppcheck, layer and size rules
	@INC="$(INC) $(PYTHON_INC)" scripts/lint $(SOURCES)
format: ## clang-format every source in place
	clang-format -i $(SOURCES)

MAN := $(patsubst docs/man/%.md,$(BUILD)/man/%,$(wildcard docs/man/*.md))
man: $(MAN) ## the manual pages
$(BUILD)/man/%: docs/man/%.md
	@mkdir -p $(@D)
	pandoc -s -t man -M footer="featured $(VERSION)" $< -o $@

install: all man ## into DESTDIR/PREFIX
	BUILD=$(BUILD) VERSION=$(VERSION) SOVERSION=$(SOVERSION) PREFIX=$(PREFIX) DESTDIR=$(DESTDIR) scripts/install
clean: ## remove build/ and dist/
	rm -rf build dist

-include $(shell find $(BUILD)/obj -name '*.d' 2>/dev/null)
