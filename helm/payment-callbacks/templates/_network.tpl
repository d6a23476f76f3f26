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
{{- define "payment-callbacks.reaches.console" -}}
database{{ if .Values.settings.console.openid }} identityProvider{{ end }}
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
{{- else if has .role (list "api" "console") }}
- ports:
    - { protocol: TCP, port: {{ .role }} }
  from:
    {{- toYaml (get $policy (printf "%sFrom" .role)) | nindent 4 }}
    - podSelector:
        matchLabels:
          {{- include "payment-callbacks.role.selectorLabels" (dict "root" $.root "role" "test") | nindent 10 }}
{{- end }}
{{- if has .role (splitList " " (include "payment-callbacks.roles" .root)) }}
- ports:
    - { protocol: TCP, port: {{ has .role (list "api" "console") | ternary .role "metrics" }} }
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

{{- define "payment-callbacks.identityProviderPorts" -}}
{{- include "payment-callbacks.portsOf" (list .Values.settings.console.openid.issuer) -}}
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
