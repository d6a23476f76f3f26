{{/* What differs between the containers of the roles: ports, probes and shutdown. */}}

{{/*
Neither readiness nor liveness depends on the broker. While RabbitMQ is away, the gateway should get this pod's quick and
definite failure, not the platform's 502.
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
    # In the meantime, the pod still answers and forwards. What RabbitMQ does not take in time stays on the volume.
    exec:
      command: [payment-callbacks, spool, drain, --at-least, {{ .Values.receiver.preStopSeconds | int | quote }}, --within, {{ add .Values.receiver.preStopSeconds .Values.receiver.spool.drainSeconds | quote }}]
    {{- else }}
    # Until every proxy knows that this pod is no longer an endpoint.
    sleep:
      seconds: {{ .Values.receiver.preStopSeconds | int }}
    {{- end }}
{{- end -}}

{{/*
API and console listen once the database has this release's schema, so their start may take as long as a migration. Liveness does not
depend on the database, because restarting a pod does not bring it back. Readiness does, so that requests go to pods that can reach it.
If no pod can, callers get a definite 503 for half a minute; after that, their connections are refused.
*/}}
{{- define "payment-callbacks.container.served" -}}
ports:
  - { name: {{ .role }}, containerPort: {{ .port }} }
startupProbe:
  httpGet: { path: /healthz, port: {{ .role }} }
  periodSeconds: 5
  timeoutSeconds: 3
  failureThreshold: 120
livenessProbe:
  httpGet: { path: /healthz, port: {{ .role }} }
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  httpGet: { path: /readyz, port: {{ .role }} }
  periodSeconds: 5
  timeoutSeconds: 3
  failureThreshold: 6
lifecycle:
  preStop:
    sleep:
      seconds: {{ (get .root.Values .role).preStopSeconds | int }}
{{- end -}}

{{- define "payment-callbacks.container.api" -}}
{{- include "payment-callbacks.container.served" (dict "root" . "role" "api" "port" 8081) -}}
{{- end -}}

{{- define "payment-callbacks.container.console" -}}
{{- include "payment-callbacks.container.served" (dict "root" . "role" "console" "port" 8082) -}}
{{- end -}}

{{/*
Consumers serve only metrics, and only once the schema is current and, for the ledger, the broker is there. Then the pod is ready. Until
then a rollout keeps the old pods, however long a migration takes. There is no liveness probe: from outside, a stuck process looks like one
that waits for its database, and restarting the second one does not help. Consumers exit when they cannot go on. Work that is not done
shows in the ages of queue, outbox and inquiries, and alerts check these.
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
