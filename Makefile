# dispatch: transactional outbox for PostgreSQL.
#
#   make, make install	build and install, as any PGXS extension
#   make installcheck	run the tests against an installed server
#   make check		set up all that is missing and run every test
#   make check-faults	the same for all the faults of test/faults, some of
#			which make check tries (10 minutes)
#   make demo		set up all that is missing and show events on their way;
#			DEMO=rabbitmq shows them in RabbitMQ instead of Redis
#   make layout		check the layout of the sources
#
# Set PG_CONFIG for a server other than the one in PATH, WERROR=1 to make
# warnings errors (CI=true implies it).

EXTENSION = dispatch
DATA = sql/dispatch--1.0.sql
HEADERS = src/include/dispatch_transport.h

# The core links no client library: it is loaded into the postmaster and into
# every session that publishes.
MODULE_big = dispatch
OBJS = $(patsubst %.c,%.o,$(sort $(wildcard src/*.c))) \
	src/transports/notify.o src/transports/sql.o

PG_CPPFLAGS = -I$(srcdir)/src -I$(srcdir)/src/include -MMD -MP
PG_CFLAGS = -Wall -Wextra -Wno-unused-parameter
ifneq (,$(WERROR)$(filter true,$(CI)))
PG_CFLAGS += -Werror
endif

# PostgreSQL loads modules with RTLD_GLOBAL: without this, a function of ours
# could be replaced by one of the same name in another extension.
PG_LDFLAGS = -Wl,-Bsymbolic

REGRESS = $(patsubst test/sql/%.sql,%,$(sort $(wildcard test/sql/*.sql)))
REGRESS_OPTS = --inputdir=test
ISOLATION = $(patsubst test/specs/%.spec,%,$(sort $(wildcard test/specs/*.spec)))
ISOLATION_OPTS = --inputdir=test --load-extension=dispatch
TAP_TESTS = 1
PROVE_TESTS = test/t/*.pl
PROVE_FLAGS = -I test/perl

PG_CONFIG ?= pg_config
PKG_CONFIG ?= pkg-config

# A transport with a client library is a module of its own, made of
# src/transports/<name>*.c.  Where the library is not installed, the module is
# left out.
#
# $(call transport,<name>,<pkg-config package>,<objects it shares with others>)
define transport
ifeq (yes,$(shell $(PKG_CONFIG) --exists $(2) 2>/dev/null && echo yes))
MODULES += dispatch_$(1)
OBJS_$(1) = $(patsubst %.c,%.o,$(sort $(wildcard src/transports/$(1)*.c))) $(3)
MODULE_OBJS += $$(OBJS_$(1))
LIBS_$(1) = $(shell $(PKG_CONFIG) --libs $(2) 2>/dev/null)
dispatch_$(1).so: $$(OBJS_$(1))
$$(OBJS_$(1)): override CPPFLAGS += $(shell $(PKG_CONFIG) --cflags $(2) 2>/dev/null)
else
$$(warning the $(1) transport is left out: pkg-config does not find $(2))
endif
endef

# These run on a machine that has no PostgreSQL yet, so they do without PGXS
# (whose own target "check" does nothing).
ifneq (,$(filter bench check check-faults demo layout,$(MAKECMDGOALS)))

.PHONY: bench check check-faults demo layout
check demo:
	@bash test/run.sh $@
check-faults: export PROVE_TESTS = test/faults/*.pl
check-faults: export REGRESS =
check-faults: export ISOLATION =
check-faults:
	@bash test/run.sh check
# The report is of all the records in the directory, also of earlier runs.
bench: export RESULTS ?= results
bench:
	@bash test/run.sh $@; status=$$?; perl test/bench_report.pl "$$RESULTS" && exit $$status
layout:
	@perl tools/check-layout

else

# Where the headers are missing, PGXS itself may be there.
PGXS := $(shell $(PG_CONFIG) --pgxs 2>/dev/null)
HEADER_OF_SERVER := $(shell $(PG_CONFIG) --includedir-server 2>/dev/null)/postgres.h
ifneq (2,$(words $(wildcard $(PGXS) $(HEADER_OF_SERVER))))
$(error $(PG_CONFIG) has no server to build for: install postgresql-server-dev-<version>)
endif

sockets = src/transports/connect.o src/transports/resolve.o

$(eval $(call transport,redis,hiredis,$(sockets)))
$(eval $(call transport,rabbitmq,librabbitmq openssl,$(sockets)))
$(eval $(call transport,kafka,rdkafka,))

# Bitcode is for inlining into queries: nothing here gains from it.
override with_llvm = no

DEPENDS = $(patsubst %.o,%.d,$(OBJS) $(MODULE_OBJS))
EXTRA_CLEAN = $(sort $(MODULE_OBJS) $(DEPENDS))

.DEFAULT_GOAL := all
include $(PGXS)
-include $(DEPENDS)

$(MODULES:=.so): dispatch_%.so:
	$(CC) $(CFLAGS) $(OBJS_$*) $(LDFLAGS) $(LDFLAGS_SL) -shared -o $@ $(LIBS_$*)

# What decides how a file is compiled must recompile it when it changes.
$(OBJS) $(MODULE_OBJS): Makefile

endif
