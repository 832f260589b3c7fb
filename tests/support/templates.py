"""Chat templates in Jinja: ERNIE's two, as far as they are known, and strangers'; and who renders these."""

from __future__ import annotations

from ernie_rt.text.sandbox import Renderer

PLAIN = """{%- set bos = cls_token if cls_token is defined else '<|begin_of_sentence|>' -%}
{{- bos -}}
{%- for message in messages -%}
    {%- if message.role == 'system' -%}{{- message.content ~ '\\n' -}}{%- endif -%}
    {%- if message.role == 'user' -%}{{- 'User: ' ~ message.content ~ '\\n' -}}{%- endif -%}
    {%- if message.role == 'assistant' -%}{{- 'Assistant: ' ~ message.content ~ sep_token -}}{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt is not defined or add_generation_prompt -%}{{- 'Assistant: ' -}}{%- endif -%}
"""

THINKING = """{%- set ns = namespace(last=-1) -%}
{%- for m in messages -%}{%- if m.role == 'user' -%}{%- set ns.last = loop.index0 -%}{%- endif -%}{%- endfor -%}
{{- '<|im_start|>system\\n' -}}
{%- if messages[0].role == 'system' -%}
    {{- '<system_setting>\\n' + messages[0].content + '\\n</system_setting>\\n\\n' -}}
{%- endif -%}
{{- '<global_setting>\\nthink_mode=True\\n</global_setting>' -}}
{%- if tools -%}
    {{- '\\n\\n<tool_list>\\n[' -}}
    {%- for t in tools -%}{{- t | tojson -}}{%- if not loop.last -%}{{- ',' -}}{%- endif -%}{%- endfor -%}
    {{- ']\\n</tool_list>' -}}
{%- endif -%}
{{- '<|im_end|>\\n\\n' -}}
{%- for m in messages -%}
    {%- if m.role == 'user' or (m.role == 'system' and not loop.first) -%}
        {{- '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n\\n' -}}
    {%- elif m.role == 'assistant' -%}
        {{- '<|im_start|>assistant\\n' -}}
        {%- set reasoning = m.reasoning_content if m.reasoning_content is string else '' -%}
        {%- if loop.index0 > ns.last and (loop.last or reasoning) -%}
            {{- '<think>\\n' + reasoning + '\\n</think>\\n' -}}
        {%- endif -%}
        {%- if m.content -%}{{- '<response>\\n' + m.content + '\\n</response>\\n' -}}{%- endif -%}
        {%- for call in m.tool_calls or [] -%}
            {{- '\\n' if loop.first and not m.content else '\\n\\n' -}}
            {{- '<tool_call>\\n' + {'name': call.function.name, 'arguments': call.function.arguments} | tojson -}}
            {{- '\\n</tool_call>\\n' -}}
        {%- endfor -%}
        {{- '<|im_end|>\\n\\n' -}}
    {%- elif m.role == 'tool' -%}
        {{- '\\n' if not loop.first and loop.previtem.role == 'tool' else '<|im_start|>tool\\n' -}}
        {{- '<tool_output>' + m.content | tojson + '</tool_output>' -}}
        {%- if loop.last or loop.nextitem.role != 'tool' -%}{{- '<|im_end|>\\n\\n' -}}{%- endif -%}
    {%- endif -%}
{%- endfor -%}
{{- '<|im_start|>assistant\\n<think>\\n' -}}
"""
"""Baidu's own renders the published conversations in the same way; its text is not known."""

CHATML = """{% for message in messages %}
{% if message.role == 'tool' %}
<|im_start|>tool {{ message.name }}
{% else %}
<|im_start|>{{ message.role }}
{% endif %}
{{ message.content | trim }}<|im_end|>
{% endfor %}
{% if tools %}{{ tools | tojson(indent=2) }}{% endif %}
{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
"""Takes the white space off its contents, and writes JSON."""

CUTTING = """{%- for message in messages -%}
<|im_start|>{{ message.role }}
{{ message.content.split('</think>')[-1] }}<|im_end|>
{% endfor -%}"""
"""Cuts thinking out of contents, as many do."""

CONTEXT = {"messages": [{"role": "user", "content": "hello"}], "bos_token": "<s>"}
GREETING = "{{ messages[0].content }}"


def process(renderer: Renderer) -> int:
    """The process that renders; 0 for none."""
    return 0 if renderer._worker is None else renderer._worker._child.pid
