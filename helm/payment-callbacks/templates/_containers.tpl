{{/* What each role's container has of its own: ports, probes, and how it goes. */}}

{{/*
Ready says "send callbacks here", alive says "do not restart me"; neither asks the broker. While RabbitMQ is away the gateway
should get this pod's quick and definite answer, and not the platform's 502.
*/}}
{{- define "payment-callbacks.container.receiver" -}}
ports:
  - { name: http, containerPort: 8080 }
  - { name: metrics, containerPort: 9090 }
startupProbe:
  httpGet: { path: /healthz, port: http }
  periodSeconds: 1
  timeoutSeconds: 3
  failureThreshold: 60
livenessProbe:
  httpGet: { path: /healthz, port: http }
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  httpGet: { path: /readyz, port: http }
  periodSeconds: 3
  timeoutSeconds: 3
  failureThreshold: 2
lifecycle:
  preStop:
    {{- if .Values.settings.spool.enabled }}
    # It goes on answering and forwarding meanwhile. What RabbitMQ does not take in time stays on the volume.
    exec:
      command: [payment-callbacks, spool, drain, --at-least, {{ .Values.receiver.preStopSeconds | int | quote }}, --within, {{ add .Values.receiver.preStopSeconds .Values.receiver.spool.drainSeconds | quote }}]
    {{- else }}
    # Until every proxy has heard that this pod is no longer among the endpoints.
    sleep:
      seconds: {{ .Values.receiver.preStopSeconds | int }}
    {{- end }}
{{- end -}}

{{/*
The API listens once the database has this release's schema, so its start may take as long as a migration. Alive never asks the
database: to restart a pod brings none back. Ready does: a pod that cannot reach it is passed over for one that can. Where none can,
callers get a definite 503 for half a minute, and are refused after that.
*/}}
{{- define "payment-callbacks.container.api" -}}
ports:
  - { name: api, containerPort: 8081 }
startupProbe:
  httpGet: { path: /healthz, port: api }
  periodSeconds: 5
  timeoutSeconds: 3
  failureThreshold: 120
livenessProbe:
  httpGet: { path: /healthz, port: api }
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  httpGet: { path: /readyz, port: api }
  periodSeconds: 5
  timeoutSeconds: 3
  failureThreshold: 6
lifecycle:
  preStop:
    sleep:
      seconds: {{ .Values.api.preStopSeconds | int }}
{{- end -}}

{{/*
Consumers serve nothing but their metrics, and these only once the schema, and for the ledger the broker, are there for them. That
makes a pod ready: until then a rollout keeps the old ones, however long a migration takes. Alive is not asked. From outside one that is
stuck looks like one that waits for its database, and to restart the latter helps nobody. They end by themselves where they cannot
go on, and work that is not done shows in the age of queue, outbox and inquiries, which is what the alerts watch.
*/}}
{{- define "payment-callbacks.container.consumer" -}}
ports:
  - { name: metrics, containerPort: 9090 }
readinessProbe:
  httpGet: { path: /metrics, port: metrics }
  periodSeconds: 5
  timeoutSeconds: 5
  failureThreshold: 3
{{- end -}}

{{- define "payment-callbacks.container.ledger" -}}
{{- include "payment-callbacks.container.consumer" . -}}
{{- end -}}

{{- define "payment-callbacks.container.inquirer" -}}
{{- include "payment-callbacks.container.consumer" . -}}
{{- end -}}

{{- define "payment-callbacks.container.dispatcher" -}}
{{- include "payment-callbacks.container.consumer" . -}}
{{- end -}}
