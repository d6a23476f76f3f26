{{/*
A value as TOML on one line. Helm's own toToml writes integers as floats. A reference to a secret becomes the path of its file in
the pod. JSON strings are valid TOML strings, and so are JSON's escapes.
*/}}
{{- define "payment-callbacks.toml.value" -}}
{{- if kindIs "map" . -}}
{{- if and (hasKey . "secret") (hasKey . "key") -}}
{ file = {{ printf "/run/secrets/payment-callbacks/%s/%s" .secret .key | toJson }} }
{{- else -}}
{ {{- range $index, $key := keys . | sortAlpha }}{{ if $index }},{{ end }} {{ include "payment-callbacks.toml.key" $key }} = {{ include "payment-callbacks.toml.value" (get $ $key) }}{{ end }} }
{{- end -}}
{{- else if kindIs "slice" . -}}
[{{- range $index, $item := . }}{{ if $index }}, {{ end }}{{ include "payment-callbacks.toml.value" $item }}{{ end -}}]
{{- else if and (kindIs "float64" .) (eq (floor .) .) -}}
{{ int64 . }}
{{- else -}}
{{ toJson . }}
{{- end -}}
{{- end -}}

{{- define "payment-callbacks.toml.key" -}}
{{- regexMatch "^[A-Za-z0-9_-]+$" . | ternary . (toJson .) -}}
{{- end -}}

{{/* The lines of one table. */}}
{{- define "payment-callbacks.toml.table" -}}
{{- range $key := keys . | sortAlpha }}
{{ include "payment-callbacks.toml.key" $key }} = {{ include "payment-callbacks.toml.value" (get $ $key) }}
{{- end -}}
{{- end -}}

{{/* A whole file: first the scalars, then a table for each section, merchant and endpoint. */}}
{{- define "payment-callbacks.toml" -}}
{{- $scalars := omit . "merchants" "endpoints" "database" "receiver" "broker" "spool" "ledger" "inquirer" "dispatcher" "api" "console" -}}
{{- include "payment-callbacks.toml.table" $scalars | trim }}
{{- range $section := list "database" "receiver" "broker" "spool" "ledger" "inquirer" "dispatcher" "api" "console" -}}
{{- with get $ $section }}

[{{ $section }}]
{{- include "payment-callbacks.toml.table" . }}
{{- end -}}
{{- end -}}
{{- range $slug, $merchant := .merchants }}

[merchants.{{ $slug }}]
{{- include "payment-callbacks.toml.table" $merchant }}
{{- end -}}
{{- range .endpoints }}

[[endpoints]]
{{- include "payment-callbacks.toml.table" . }}
{{- end -}}
{{- end -}}
