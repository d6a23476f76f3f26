{{/* Which role may reach what. In addition, every role may reach the DNS. */}}

{{- define "payment-callbacks.reaches.receiver" -}}broker{{- end -}}
{{- define "payment-callbacks.reaches.ledger" -}}broker database{{- end -}}
{{- define "payment-callbacks.reaches.inquirer" -}}database gateways{{- end -}}
{{- define "payment-callbacks.reaches.dispatcher" -}}
database webhooks
{{- range .Values.settings.endpoints }}{{ if eq .kind "amqp" }} broker{{ end }}{{ end }}
{{- end -}}
{{- define "payment-callbacks.reaches.api" -}}
database{{ if include "payment-callbacks.asksGateways" . }} gateways{{ end }}
{{- end -}}
{{- define "payment-callbacks.reaches.migrate" -}}database{{- end -}}
{{- define "payment-callbacks.reaches.prune" -}}database{{- end -}}
{{- define "payment-callbacks.reaches.report" -}}database{{- end -}}
{{- define "payment-callbacks.reaches.test" -}}release{{- end -}}

{{/* An egress rule: (dict "to" peers "ports" numbers). No peers: any peer. No ports: no rule. */}}
{{- define "payment-callbacks.egressRule" -}}
{{- if .ports -}}
- ports:
    {{- range .ports }}
    - { protocol: TCP, port: {{ int . }} }
    {{- end }}
  {{- with .to }}
  to:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}
{{- end -}}

{{/* The ingress rules of a role. A role without a port accepts no connections. */}}
{{- define "payment-callbacks.ingressRules" -}}
{{- $policy := .root.Values.networkPolicy -}}
{{- if eq .role "receiver" }}
- ports:
    - { protocol: TCP, port: http }
  {{- with $policy.receiverFrom }}
  from:
    {{- toYaml . | nindent 4 }}
    - podSelector:
        matchLabels:
          {{- include "payment-callbacks.role.selectorLabels" (dict "root" $.root "role" "test") | nindent 10 }}
  {{- end }}
{{- else if eq .role "api" }}
- ports:
    - { protocol: TCP, port: api }
  from:
    {{- toYaml $policy.apiFrom | nindent 4 }}
    - podSelector:
        matchLabels:
          {{- include "payment-callbacks.role.selectorLabels" (dict "root" $.root "role" "test") | nindent 10 }}
{{- end }}
{{- if or (eq .role "api") (has .role (splitList " " (include "payment-callbacks.metricsRoles" .root))) }}
- ports:
    - { protocol: TCP, port: {{ eq .role "api" | ternary "api" "metrics" }} }
  from:
    {{- toYaml $policy.metricsFrom | nindent 4 }}
{{- end }}
{{- end -}}

{{/* The ports of the URLs in the settings, as a JSON list. */}}
{{- define "payment-callbacks.gatewayPorts" -}}
{{- $urls := list -}}
{{- range .Values.settings.merchants -}}
{{- with .gateway }}{{ $urls = append $urls (kindIs "string" .proxy | ternary .proxy .url) }}{{ end -}}
{{- end -}}
{{- include "payment-callbacks.portsOf" $urls -}}
{{- end -}}

{{- define "payment-callbacks.webhookPorts" -}}
{{- $urls := list -}}
{{- range .Values.settings.endpoints -}}
{{- with .url }}{{ $urls = append $urls . }}{{ end -}}
{{- end -}}
{{- include "payment-callbacks.portsOf" $urls -}}
{{- end -}}

{{- define "payment-callbacks.portsOf" -}}
{{- $ports := list -}}
{{- range . -}}
{{- $default := hasPrefix "https:" . | ternary "443" "80" -}}
{{- $ports = append $ports (regexFind ":[0-9]+$" (urlParse .).host | trimPrefix ":" | default $default | int) -}}
{{- end -}}
{{- $ports | uniq | toJson -}}
{{- end -}}
