# One image for every role: `docker run … payment-callbacks:VERSION run receiver`. Mount the settings at
# /etc/payment-callbacks/payment-callbacks.toml. docs/decisions/0010-one-image.md gives the reasons.

# The minor version of Python that every test runs on. The digest decides what is pulled, on every platform; the tag is for readers.
# The base gets no security updates until you renew both together:
#   docker buildx imagetools inspect python:3.11-slim-bookworm
#   docker build --build-arg BASE=python:3.11.…-slim-bookworm@sha256:… .
ARG BASE=python:3.11.15-slim-bookworm@sha256:d29f48a31a8b408ed19272ca1e7b10ebae13b240a27e862d3d4217c528e2e0c3


FROM ${BASE} AS build

ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_NO_INPUT=1

# Two virtual environments: one with pip, and one without it, which runs the service. Its path is the same here and in the
# final image, because scripts contain the path of their interpreter.
RUN python3 -m venv /opt/pip && python3 -m venv --without-pip /opt/payment-callbacks

WORKDIR /source

# The locked releases, only as wheels: nothing is compiled, and no package's code runs here. With a package mirror:
#   docker build --secret id=pip.conf,src=$HOME/.config/pip/pip.conf .
COPY requirements/postgresql.txt requirements/otel.txt requirements/oidc.txt requirements/
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    /opt/pip/bin/pip --python /opt/payment-callbacks/bin/python install \
      --require-hashes --only-binary :all: \
      --requirement requirements/postgresql.txt --requirement requirements/otel.txt --requirement requirements/oidc.txt

# Our own wheel, built with the locked setuptools. Nothing needs setuptools at run time, so it is removed again.
COPY pyproject.toml README.md ./
COPY service service
COPY consumers consumers
RUN pip='/opt/pip/bin/pip --python /opt/payment-callbacks/bin/python' \
    && $pip wheel --no-index --no-deps --no-build-isolation --wheel-dir /wheel . \
    && $pip install --no-index --no-deps /wheel/*.whl \
    && $pip uninstall --yes setuptools


FROM ${BASE}

# The image is replaced, never changed, so it needs no installers: remove those of the base.
RUN if python3 -m pip --version; then \
      python3 -m pip uninstall --yes --root-user-action ignore setuptools wheel pip; \
    fi

# libpq needs a name for the user id. The user owns only its data, so it cannot change its own code.
RUN groupadd --gid 10001 payment-callbacks \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin \
      payment-callbacks \
    && install --directory --owner 10001 --group 10001 --mode 0700 /var/lib/payment-callbacks

COPY --from=build /opt/payment-callbacks /opt/payment-callbacks

ENV PATH=/opt/payment-callbacks/bin:$PATH \
    PAYMENT_CALLBACKS_CONFIG=/etc/payment-callbacks/payment-callbacks.toml \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1

# Last, because they change with every build and would invalidate the cache.
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

# By number, because Kubernetes cannot check whether a name is root.
USER 10001:10001
WORKDIR /var/lib/payment-callbacks
EXPOSE 8080 8081 8082

# No HEALTHCHECK: what is healthy differs by role. compose.yaml and the chart have their own checks.
ENTRYPOINT ["payment-callbacks"]
CMD ["--help"]
