{{/* How many seconds a role needs from SIGTERM to its end: the time for the work under way, and ten more. */}}
{{- define "payment-callbacks.grace" -}}
{{- $settings := .root.Values.settings -}}
{{- $seconds := 20 -}}
{{- if eq .role "receiver" -}}
{{- $seconds = add .root.Values.receiver.preStopSeconds (ceil ($settings.receiver.drain_seconds | default 10)) -}}
{{- if $settings.spool.enabled -}}
{{- $seconds = add $seconds .root.Values.receiver.spool.drainSeconds -}}
{{- end -}}
{{- else if eq .role "api" -}}
{{- $seconds = add .root.Values.api.preStopSeconds (ceil ($settings.api.drain_seconds | default 20)) -}}
{{- else if eq .role "console" -}}
{{- $seconds = add .root.Values.console.preStopSeconds (ceil ($settings.console.drain_seconds | default 10)) -}}
{{- else if eq .role "dispatcher" -}}
{{- range $settings.endpoints -}}
{{- $seconds = max $seconds (ceil (.timeout_seconds | default 10)) -}}
{{- end -}}
{{- else if eq .role "inquirer" -}}
{{- range $settings.merchants -}}
{{- $seconds = max $seconds (ceil (dig "gateway" "timeout_seconds" 15.0 .)) -}}
{{- end -}}
{{- end -}}
{{- add $seconds 10 -}}
{{- end -}}
