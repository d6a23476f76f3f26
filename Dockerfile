# One image for every role: `docker run … payment-callbacks:VERSION run receiver`. Its settings are mounted at
# /etc/payment-callbacks/payment-callbacks.toml. Why it is as it is: docs/decisions/0010-one-image.md.

# The Python minor that every test runs on. The digest is what is pulled, for whichever platform; the tag only says what it is.
# It stays as it is, flaws included, until both are renewed together:
#   docker buildx imagetools inspect python:3.11-slim-bookworm
#   docker build --build-arg BASE=python:3.11.…-slim-bookworm@sha256:… .
ARG BASE=python:3.11.15-slim-bookworm@sha256:d29f48a31a8b408ed19272ca1e7b10ebae13b240a27e862d3d4217c528e2e0c3


FROM ${BASE} AS build

ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_NO_INPUT=1

# Two virtual environments: one for pip, and one without it, which is what runs. At the place where it runs, because
# scripts name their interpreter.
RUN python3 -m venv /opt/pip && python3 -m venv --without-pip /opt/payment-callbacks

WORKDIR /source

# The locked releases, as wheels alone: nothing is compiled, and no code of a package runs here. Behind a mirror:
#   docker build --secret id=pip.conf,src=$HOME/.config/pip/pip.conf .
COPY requirements/postgresql.txt requirements/
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    /opt/pip/bin/pip --python /opt/payment-callbacks/bin/python install \
      --require-hashes --only-binary :all: --requirement requirements/postgresql.txt

# Our own wheel, made by the locked setuptools, which then goes: nothing needs it at run time.
COPY pyproject.toml README.md ./
COPY service service
COPY consumers consumers
RUN pip='/opt/pip/bin/pip --python /opt/payment-callbacks/bin/python' \
    && $pip wheel --no-index --no-deps --no-build-isolation --wheel-dir /wheel . \
    && $pip install --no-index --no-deps /wheel/*.whl \
    && $pip uninstall --yes setuptools


FROM ${BASE}

# An image that is replaced installs nothing, so the base's own installers go, where it has any.
RUN if python3 -m pip --version; then \
      python3 -m pip uninstall --yes --root-user-action ignore setuptools wheel pip; \
    fi

# A name for the number, which libpq asks for. Nothing belongs to it but its data: it cannot change its own code.
RUN groupadd --gid 10001 payment-callbacks \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin \
      payment-callbacks \
    && install --directory --owner 10001 --group 10001 --mode 0700 /var/lib/payment-callbacks

COPY --from=build /opt/payment-callbacks /opt/payment-callbacks

ENV PATH=/opt/payment-callbacks/bin:$PATH \
    PAYMENT_CALLBACKS_CONFIG=/etc/payment-callbacks/payment-callbacks.toml \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1

# After everything that takes time, since they change with every build.
ARG BASE
ARG VERSION=unknown
ARG REVISION=unknown
ARG CREATED=unknown
LABEL org.opencontainers.image.title="payment-callbacks" \
      org.opencontainers.image.description="The service behind the notify_url of a direct-debit payment gateway" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}" \
      org.opencontainers.image.base.name="${BASE}"

# By number: Kubernetes cannot tell whether a name is root.
USER 10001:10001
WORKDIR /var/lib/payment-callbacks
EXPOSE 8080 8081

# No HEALTHCHECK: what is healthy differs by role, and whoever runs a role asks it (compose.yaml, the chart's probes).
ENTRYPOINT ["payment-callbacks"]
CMD ["--help"]
