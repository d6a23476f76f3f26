{{/* Names. Every template takes the root context, or with a role: (dict "root" $ "role" "ledger"). */}}

{{- define "payment-callbacks.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* Leaves room for the longest suffix, that of a migration. */}}
{{- define "payment-callbacks.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- $name := include "payment-callbacks.name" . -}}
{{- contains $name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name $name) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "payment-callbacks.role.fullname" -}}
{{ include "payment-callbacks.fullname" .root }}-{{ .role }}
{{- end -}}

{{- define "payment-callbacks.selectorLabels" -}}
app.kubernetes.io/name: {{ include "payment-callbacks.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "payment-callbacks.role.selectorLabels" -}}
{{ include "payment-callbacks.selectorLabels" .root }}
app.kubernetes.io/component: {{ .role }}
{{- end -}}

{{- define "payment-callbacks.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: payment-callbacks
{{ include "payment-callbacks.selectorLabels" . }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "payment-callbacks.role.labels" -}}
{{ include "payment-callbacks.labels" .root }}
app.kubernetes.io/component: {{ .role }}
{{- end -}}

{{- define "payment-callbacks.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{ .Values.serviceAccount.name | default (include "payment-callbacks.fullname" .) }}
{{- else -}}
{{ .Values.serviceAccount.name | default "default" }}
{{- end -}}
{{- end -}}

{{- define "payment-callbacks.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The roles that have something to do, separated by spaces. */}}
{{- define "payment-callbacks.roles" -}}
receiver ledger
{{- if include "payment-callbacks.asksGateways" . }} inquirer{{ end }}
{{- if .Values.settings.endpoints }} dispatcher{{ end }}
{{- if .Values.settings.api.tokens }} api{{ end }}
{{- if .Values.settings.console.session_keys }} console{{ end }}
{{- end -}}

{{- define "payment-callbacks.asksGateways" -}}
{{- range .Values.settings.merchants -}}
{{- if .gateway }}yes{{ end -}}
{{- end -}}
{{- end -}}

{{/* The host of a role's public_url, without its port. */}}
{{- define "payment-callbacks.publicHost" -}}
{{- (urlParse (required (printf "settings.%s.public_url is needed: its host is that of the Ingress" .role) (get .root.Values.settings .role).public_url)).hostname -}}
{{- end -}}
